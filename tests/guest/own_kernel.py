"""The kernel of the demo guest, in a QEMU without KVM: there a test may do what this machine's kernel can't.

It runs on any x86-64 processor, takes no rights, and has what machine_files.py brings of this machine.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests import needs
from tests.conftest import ROOT
from tests.guest.machine_files import machine_files

sys.path.insert(0, str(ROOT / "scripts"))

from demo_initrd import Entry, archive

# With the package that Debian has each in.
PROGRAMS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "prlimit": "util-linux",
    "setpriv": "util-linux",
    "env": "coreutils",
}
# Told there: what that kernel can't do either, no other will.
INSIDE = "SEVLAUNCH_OWN_KERNEL"
FOLDERS = {"proc": 0o755, "sys": 0o755, "dev": 0o755, "run": 0o755, "root": 0o755, "tmp": 0o1777}
# Busybox and the modules are the demo guest's; this machine's files are in /machine.
INIT = """\
#!/bin/busybox sh
export PATH=/bin
mount -t proc proc /machine/proc
mount -t sysfs sys /machine/sys
mount -t devtmpfs dev /machine/dev
for module in {modules}; do insmod /lib/modules/$module.ko; done
env -i {environment} chroot /machine {command} 2>&1
# Setting the terminal waits until all that was printed is out.
stty sane
poweroff -f
"""
# A panic ends QEMU, too.
CMDLINE = "console=ttyS0 quiet mitigations=off panic=-1 rdinit=/start"
LIMIT = 600


def passes_in_own_kernel(test: str, why: str, base: Path, *, memory: int, modules: Sequence[str] = ()) -> None:
    """Run a test, by its name for pytest, as root in a kernel of its own; it must pass there.

    Skips by name where there is no such kernel, or no QEMU that emulates a processor for it.

    :param why: what this machine's kernel can't do.
    :param memory: bytes that it has.
    :param modules: names of kernel modules, in the order of loading.
    """
    if INSIDE in os.environ:
        pytest.fail(f"nor can a kernel of its own: {why}")
    programs = [needs.program(name, package) for name, package in PROGRAMS.items()]
    _need_tcg(programs[0])
    _need_modules(modules)
    initrd = base / "initrd.img"
    _write_initrd(initrd, programs, _start(test, modules))
    machine = ["-machine", "q35,accel=tcg", "-cpu", "max", "-m", f"{memory >> 20}M"]
    devices = ["-no-user-config", "-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot"]
    boot = ["-kernel", str(needs.demo_guest() / "vmlinuz"), "-initrd", str(initrd), "-append", CMDLINE]
    shown = subprocess.run(
        [programs[0], *machine, *devices, *boot],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=LIMIT,
        check=False,
    ).stdout
    assert re.search(r"^1 passed", shown, re.MULTILINE), shown


def _need_tcg(qemu: str) -> None:
    if "tcg" not in subprocess.run([qemu, "-accel", "help"], stdout=subprocess.PIPE, text=True, check=True).stdout:
        pytest.skip(f"{qemu} emulates no processor: it has no TCG")


def _need_modules(modules: Sequence[str]) -> None:
    content = (needs.demo_guest() / "initrd.img").read_bytes()
    for module in modules:
        if f"lib/modules/{module}.ko\0".encode() not in content:
            pytest.skip(f"the demo guest has no kernel module {module}")


def _start(test: str, modules: Sequence[str]) -> str:
    """The first process of that kernel."""
    # To look for plugins is what takes longest of pytest's start there.
    environment = {"PATH": os.environ["PATH"], "HOME": "/root", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", INSIDE: "1"}
    if "SEVLAUNCH_SOAK" in os.environ:
        environment["SEVLAUNCH_SOAK"] = os.environ["SEVLAUNCH_SOAK"]
    plugins = ["-p", "pytest_asyncio.plugin", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *plugins, "-q", "--color=no", str(ROOT / test)]
    return INIT.format(
        modules=shlex.join(modules),
        environment=shlex.join(f"{name}={value}" for name, value in environment.items()),
        command=shlex.join(command),
    )


def _write_initrd(path: Path, programs: Sequence[str], start: str) -> None:
    """The demo guest's initrd, and behind it this machine's files: the kernel unpacks one after the other."""
    entries = [Entry("start", stat.S_IFREG | 0o755, start.encode())]
    entries += [replace(entry, name=f"machine/{entry.name}") for entry in machine_files(programs)]
    entries += [Entry(f"machine/{name}", stat.S_IFDIR | mode) for name, mode in FOLDERS.items()]
    with path.open("wb") as stream:
        stream.write((needs.demo_guest() / "initrd.img").read_bytes())
        stream.writelines(archive(entries))
