"""What a test needs of the machine: each function gives it, or skips the test by the name of what is missing.

tests/known-skips.toml lists who may skip for which of these reasons, and on which machines.
"""

from __future__ import annotations

import os
import resource
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# The largest guest of profiles/ with what QEMU needs beside it.
REHEARSED_BYTES = 5 << 30
OVMF = Path("/usr/share/OVMF")


def tool(name: str) -> Path | None:
    """Something that scripts/test-tools brought, or None."""
    cache = Path(os.environ.get("SEVLAUNCH_TEST_CACHE") or Path.home() / ".cache")
    path = Path(os.environ.get("SEVLAUNCH_TOOLS") or cache / "sevlaunch/tools") / name
    return path if path.exists() else None


def _tool(name: str, missing: str) -> Path:
    """Something that scripts/test-tools brought; skips, saying what is ``missing``, where it has not."""
    found = tool(name)
    if found is None:
        pytest.skip(missing)
    return found


def can_open_kvm() -> bool:
    """Whether there is a way to KVM."""
    return os.access("/dev/kvm", os.R_OK | os.W_OK)


def can_lock(size: int = REHEARSED_BYTES) -> bool:
    """Whether this user may lock so many bytes; by default those of a rehearsed guest."""
    return os.geteuid() == 0 or not 0 <= resource.getrlimit(resource.RLIMIT_MEMLOCK)[1] < size


def kvm() -> None:
    """A way to KVM."""
    if not can_open_kvm():
        pytest.skip("no /dev/kvm that this user can open")


def rehearsal() -> None:
    """What a launch with an emulated processor takes: KVM, and the right to lock the guest's memory."""
    kvm()
    locked_memory(REHEARSED_BYTES)


def locked_memory(size: int) -> None:
    """The right to lock so many bytes."""
    if not can_lock(size):
        pytest.skip(f"this user may not lock {size >> 20} MiB")


def no_sev(why: str) -> None:
    """A host without SEV; ``why`` says what the test looks at."""
    if Path("/dev/sev").exists():
        pytest.skip(f"this host has SEV: {why}")


def root(what: str) -> None:
    """The rights of root; ``what`` names what takes them."""
    if os.geteuid() != 0:
        pytest.skip(f"not root: {what} takes it")


def program(name: str, package: str) -> str:
    """The path of a program that Debian has in ``package``."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed: the package {package} has it")
    return found


def file_of(package: str, path: str) -> Path:
    """A file that Debian has in ``package``."""
    if not Path(path).exists():
        pytest.skip(f"{path} is not here: the package {package} has it")
    return Path(path)


def ovmf() -> tuple[Path, Path]:
    """Debian's ordinary OVMF: its code and the template of its variables."""
    return file_of("ovmf", f"{OVMF}/OVMF_CODE_4M.fd"), file_of("ovmf", f"{OVMF}/OVMF_VARS_4M.fd")


def amdsev_image() -> Path:
    """OVMF.amdsev.fd, made for encrypted guests."""
    return _tool("ovmf-amdsev/OVMF.amdsev.fd", "OVMF.amdsev.fd is not here: scripts/test-tools amdsev brings it")


def debian_disk(release: int = 13) -> Path:
    """The image of a disk with Debian on it, 12 or 13, as a distribution's cloud image is."""
    if release == 12:
        missing = "a disk with Debian is not here: scripts/test-tools disk-12 brings it"
        return _tool("debian-disk-12/debian-bookworm.qcow2", missing)
    return _tool("debian-disk/debian-trixie.qcow2", "a disk with Debian is not here: scripts/test-tools disk brings it")


def measured_debian() -> Path:
    """The image that profiles/measured.yaml boots: a Debian whose root is never written, with its kernel in it."""
    return _tool(
        "measured-debian/root.raw", "a Debian for a measured boot is not here: scripts/test-tools measured brings it"
    )


def cluster() -> Path:
    """The root folder of Pacemaker and Corosync."""
    return _tool("cluster", "Pacemaker and Corosync are not here: scripts/test-tools cluster brings them")


def cloud_init() -> Path:
    """The folder of cloud-init's Python."""
    return _tool("cloud-init", "cloud-init is not here: scripts/test-tools cloud-init brings it")


def systemd_stub() -> Path:
    """What a unified kernel image begins with."""
    return _tool("systemd-stub/linuxx64.efi.stub", "systemd's stub is not here: scripts/test-tools stub brings it")


def guest_agent() -> Path:
    """qemu-ga, the agent that runs in guests."""
    return _tool("qemu-ga/qemu-ga", "qemu-ga is not here: scripts/test-tools agent brings it")


def debian_firmware(suite: str) -> Path:
    """The root folder of the firmware packages of a Debian: 12, 13 or sid."""
    found = tool(f"ovmf-{suite}")
    if found is None:
        pytest.skip(f"the firmware of Debian {suite} is not here: scripts/test-tools ovmf-{suite} brings it")
    return found


def demo_has_ssh() -> bool:
    """Whether there is a demo guest with an SSH server."""
    initrd = ROOT / "build/demo/initrd.img"
    return initrd.exists() and b"bin/dropbear\0" in initrd.read_bytes()


def demo_ssh() -> None:
    """The demo guest with an SSH server, and the system's ssh to reach it."""
    program("ssh", "openssh-client")
    demo_guest()
    if not demo_has_ssh():
        pytest.skip("the demo guest has no SSH server: it is Debian's")


def demo_guest() -> Path:
    """The folder of the demo guest: vmlinuz, initrd.img, disk.raw."""
    folder = ROOT / "build/demo"
    if not (folder / "vmlinuz").exists():
        pytest.skip("the demo guest is not built: scripts/demo-guest builds it")
    return folder
