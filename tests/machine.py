"""What kind of machine this is: the facts that tests/known-skips.toml goes by.

Each kind is decided by what the machine has, never by whether a test skipped.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.needs import ROOT, can_lock, can_open_kvm

GIBIBYTE = 1 << 30
# linux/capability.h
_CAP_SYS_ADMIN, _CAP_MKNOD = 21, 27


def _here(path: str) -> Callable[[], bool]:
    return lambda: Path(path).exists()


def _not_here(*paths: str) -> Callable[[], bool]:
    return lambda: not any(Path(path).exists() for path in paths)


def _fails(*command: str, given: str = "") -> bool:
    try:
        done = subprocess.run(command, input=given, text=True, capture_output=True, check=False, timeout=120)
    except OSError:
        return True
    return done.returncode != 0


def _not_debian() -> bool:
    try:
        return platform.freedesktop_os_release()["ID"] not in ("debian", "ubuntu")
    except OSError:
        return True


def _without_capabilities() -> bool:
    status = Path("/proc/self/status").read_text()
    found = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    effective = int(found[1], 16) if found else 0
    return not all(effective >> bit & 1 for bit in (_CAP_SYS_ADMIN, _CAP_MKNOD))


def _out_of_reach() -> bool:
    """Whether an ordinary user can't run the project: its folders are closed, or the system has another Python."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    if _fails("/usr/bin/python3", "-c", f"import sys; sys.exit(not sys.version.startswith('{version}.'))"):
        return True
    packages = Path(pytest.__file__).parent
    folders = {folder for path in (ROOT / "sevlaunch", packages) for folder in (path, *path.parents)}
    return not all(folder.stat().st_mode & 0o005 == 0o005 for folder in folders)


def _without_tcg() -> bool:
    qemu = shutil.which("qemu-system-x86_64")
    accelerators = [qemu, "-accel", "help"] if qemu else ["true"]
    return "tcg" not in subprocess.run(accelerators, stdout=subprocess.PIPE, text=True, check=False).stdout


def _without_package_index() -> bool:
    uv = Path(sys.executable).parent / "uv"
    return _fails(str(uv), "pip", "compile", "--no-cache", "--no-config", "-", given="iniconfig")


def _systemd_before_250() -> bool:
    """`systemd-analyze security --offline` came with 250."""
    done = subprocess.run(["systemd-analyze", "--version"], capture_output=True, text=True, check=False)
    found = re.match(r"systemd (\d+)", done.stdout)
    return found is not None and int(found[1]) < 250


def _without_macvtap() -> bool:
    """A network namespace of its own shows it, and takes away what was made."""
    script = "ip link add a type veth peer name b && ip link add link a name m type macvtap"
    return _fails("unshare", "--net", "sh", "-c", script)


def _memory_below(size: int) -> bool:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") < size


def _without_overlay() -> bool:
    script = (
        "mount -t tmpfs none /mnt && mkdir /mnt/u /mnt/w /mnt/r && "
        "mount -t overlay -o lowerdir=/,upperdir=/mnt/u,workdir=/mnt/w overlay /mnt/r"
    )
    return _fails("unshare", "--mount", "--propagation", "private", "sh", "-c", script)


KINDS: dict[str, Callable[[], bool]] = {
    "no-kvm": lambda: not can_open_kvm(),
    "little-locked-memory": lambda: not can_lock(),
    "with-sev": _here("/dev/sev"),
    "no-kvm-pvm": _not_here("/sys/module/kvm_pvm"),
    "not-root": lambda: os.geteuid() != 0,
    "closed-container": _without_capabilities,
    "no-overlay": _without_overlay,
    "project-in-tmp": lambda: ROOT.is_relative_to("/tmp"),
    "no-user-namespaces": lambda: _fails("unshare", "--user", "--map-root-user", "true"),
    "out-of-reach": _out_of_reach,
    "not-debian": _not_debian,
    "no-tcg": _without_tcg,
    "no-archive": lambda: _fails(str(ROOT / "scripts/test-tools"), "--reachable"),
    "no-shared-reports": lambda: not any((folder / "shared/vectors/reports").is_dir() for folder in ROOT.parents),
    "no-cddl": lambda: find_spec("pycddl") is None,
    "no-package-index": _without_package_index,
    "old-systemd": lambda: shutil.which("systemd-analyze") is not None and _systemd_before_250(),
    "no-libvirt": lambda: not any(Path("/usr/lib").glob("*/libvirt/connection-driver/*_qemu.so")),
    "no-virtiofsd": _not_here("/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd"),
    "no-tun": _not_here("/dev/net/tun"),
    "no-macvtap": _without_macvtap,
    "with-bridge-configuration": _here("/etc/qemu/bridge.conf"),
    "with-vhost-vsock": _here("/dev/vhost-vsock"),
    "little-memory": lambda: _memory_below(16 * GIBIBYTE),
    "no-huge-pages": lambda: not os.access("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", os.W_OK),
    "no-numa": lambda: _not_here("/sys/devices/system/node/node0")() or _not_here("/proc/self/numa_maps")(),
    "no-cgroup-v1": lambda: not os.access("/sys/fs/cgroup/memory/memory.limit_in_bytes", os.R_OK),
}


@cache
def is_of(kind: str) -> bool:
    """Whether this machine is of a kind.

    :raises KeyError: nobody knows the kind.
    """
    return KINDS[kind]()
