"""Linux as an ordinary process that has this machine's files: its root may do what this machine's root can't."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.conftest import ROOT

# include/uapi/linux/reboot.h: LINUX_REBOOT_CMD_POWER_OFF.
_POWER_OFF = "import ctypes; ctypes.CDLL(None).reboot(0x4321FEDC)"
# arch/x86/entry/syscalls/syscall_64.tbl: 313 is finit_module.
_LOAD = """\
import ctypes, os, sys
for file in sys.argv[1:]:
    if ctypes.CDLL(None).syscall(313, os.open(file, os.O_RDONLY), b"", 0):
        sys.exit("can't load " + file)
"""
_INIT = """\
#!/bin/sh
export PATH={path} HOME={home} SEVLAUNCH_SOAK={soak}
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs -o mode=1777 tmpfs /tmp
{python} -c {load} {modules}
cd {root}
{python} -m pytest -p no:cacheprovider -q {test}
exec {python} -c {power_off}
"""


def passes_in_user_mode_linux(test: str, base: Path, *, memory: int, modules: Sequence[str] = ()) -> None:
    """Run a test, by its name for pytest, in a Linux of its own; it must pass there.

    Skips by name where there is no such Linux.

    :param memory: bytes that it has.
    :param modules: names of kernel modules, in the order of loading.
    """
    kernel = shutil.which("linux")
    found = [file for name in modules for file in Path("/usr/lib/uml/modules").glob(f"*/kernel/**/{name}.ko")]
    if not kernel or len(found) != len(modules):
        pytest.skip("this needs another kernel than the one here, and there is no user-mode-linux")
    init = base / "init"
    names = {"path": os.environ["PATH"], "home": str(Path.home()), "root": str(ROOT), "python": sys.executable}
    names |= {"test": test, "power_off": _POWER_OFF, "soak": os.environ.get("SEVLAUNCH_SOAK", ""), "load": _LOAD}
    quoted = {key: shlex.quote(value) for key, value in names.items()}
    init.write_text(_INIT.format_map({**quoted, "modules": shlex.join(map(str, found))}))
    init.chmod(0o755)
    command = [kernel, f"mem={memory >> 20}M", "rootfstype=hostfs", "rootflags=/", "rw", "quiet", f"init={init}"]
    shown = subprocess.run(
        [*command, "con=null", "con0=fd:0,fd:1"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=600,
        check=False,
    ).stdout
    assert "1 passed" in shown, shown
