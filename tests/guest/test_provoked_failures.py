"""The hints for failures that the QEMUs here give when they are provoked."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sevlaunch.guest.diagnosis import hint_for
from sevlaunch.host.processor import cpu_facts
from sevlaunch.host.system import System
from tests import needs
from tests.conftest import VERSIONS, qemu_binary_of

# Arguments that this QEMU refuses, on the machine q35, words of the hint, and, where another one does not say it alike,
# the versions.
TCG = ["-accel", "tcg", "-m", "64M"]
SEV_OBJECT = ["-object", "sev-guest,id=sev0,cbitpos=51,reduced-phys-bits=1"]
PROVOKED: dict[str, tuple[list[str], str, tuple[str, ...]]] = {
    "SEV with TCG": (
        [*TCG, *SEV_OBJECT, "-machine", "memory-encryption=sev0"],
        "SEV needs KVM: leave accel at auto or kvm",
        VERSIONS,
    ),
    "more memory than the model can address": (
        [
            *("-accel", "tcg", "-m", "2T", "-cpu", "EPYC-v3", "-machine", "memory-backend=m"),
            *("-object", "memory-backend-ram,id=m,size=2T,reserve=off"),
        ],
        "add host-phys-bits=on to cpu.features",
        VERSIONS,
    ),
    "more memory than there is": (
        [
            *("-accel", "tcg", "-m", "1000T", "-machine", "memory-backend=m"),
            *("-object", "memory-backend-ram,id=m,size=1000T"),
        ],
        "there is not enough free memory",
        VERSIONS,
    ),
    "virtio without its modern half": (
        [*TCG, "-device", "virtio-rng-pci,iommu_platform=on"],
        "disable-legacy=on",
        VERSIONS,
    ),
    "no such file": (
        [*TCG, "-blockdev", "driver=file,node-name=a,filename=/nonexistent"],
        "the file is not there",
        VERSIONS,
    ),
    "no such firmware": ([*TCG, "-bios", "/nonexistent"], "is not there, or its size is no multiple", VERSIONS),
    "firmware of an odd size": ([*TCG, "-bios", "/etc/hostname"], "its size is no multiple of 64 KiB", VERSIONS),
    "firmware of an odd size on pflash": (
        [*TCG, "-drive", "if=pflash,format=raw,readonly=on,file=/etc/passwd"],
        "nothing that QEMU takes on pflash",
        VERSIONS,
    ),
    "physical address bits that no CPU has": (
        [*TCG, "-cpu", "EPYC-v3,phys-bits=20"],
        "phys-bits in cpu.features",
        VERSIONS,
    ),
    "no such KVM device": (["-accel", "kvm,device=/nonexistent"], "modprobe kvm_amd", ("10.0", "11.1")),
    "a script of tap": (
        [*TCG, "-sandbox", "on,spawn=deny", "-netdev", "tap,id=n0,ifname=sltest1"],
        "add script=no,downscript=no",
        ("10.0", "11.1"),
    ),
    "a bridge in the sandbox": (
        [*TCG, "-sandbox", "on,spawn=deny", "-netdev", "bridge,id=n0"],
        "/etc/qemu/bridge.conf",
        ("10.0", "11.1"),
    ),
    "what starts a program in the sandbox of 7.2": (
        [*TCG, "-sandbox", "on,spawn=deny", "-netdev", "bridge,id=n0"],
        "QEMU's sandbox stopped it",
        ("7.2",),
    ),
}


def refused(binary: str, arguments: list[str], *, prefix: list[str] | None = None) -> str:
    """The hint for what this QEMU says about arguments that it ends at."""
    command = [*(prefix or []), binary, "-machine", "q35", "-nodefaults", "-display", "none", "-S", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    assert done.returncode != 0
    return hint_for(done.stderr.splitlines(), done.returncode)


@pytest.mark.parametrize(
    ("what", "version"), [(what, version) for what, (_, _, versions) in PROVOKED.items() for version in versions]
)
def test_what_a_real_qemu_prints_has_its_hint(what: str, version: str) -> None:
    arguments, words, _ = PROVOKED[what]
    assert words in refused(qemu_binary_of(version), arguments)


def test_what_a_real_qemu_prints_where_kvm_has_no_sev(qemu_binary: str) -> None:
    needs.kvm()
    needs.no_sev("QEMU refuses it")
    encrypted = ["-accel", "kvm", "-m", "64M", "-machine", "memory-encryption=sev0", "-object"]
    sev = "sev-guest,id=sev0,reduced-phys-bits=1,cbitpos="
    # A CPU without this leaf of CPUID answers with that of another (Intel), or with 0.
    cbitpos = cpu_facts(System()).instruction_cbitpos
    assert "leave security.cbitpos at auto" in refused(qemu_binary, [*encrypted, f"{sev}{cbitpos ^ 1}"])
    assert "load the ccp module" in refused(qemu_binary, [*encrypted, f"{sev}{cbitpos}"])


def test_snp_on_a_kvm_without_it(qemu_binary: str) -> None:
    needs.kvm()
    needs.no_sev("QEMU refuses it")
    if qemu_binary == qemu_binary_of("7.2"):
        # It has no such object.
        return
    snp = ["-machine", "memory-encryption=sev0", "-object", "sev-snp-guest,id=sev0,cbitpos=51,reduced-phys-bits=1"]
    assert "KVM has no SNP: it needs Linux 6.11" in refused(qemu_binary, ["-accel", "kvm", "-cpu", "EPYC", *snp])


def test_an_image_that_is_in_use(qemu_binary: str, base: Path) -> None:
    image = base / "disk.raw"
    image.write_bytes(bytes(1 << 20))
    disk = ["-blockdev", f"driver=file,node-name=a,filename={image}", "-device", "virtio-blk-pci,drive=a"]
    with locked_as_qemu_does(image):
        assert "another process uses the image" in refused(qemu_binary, [*TCG, *disk])


@contextmanager
def locked_as_qemu_does(image: Path) -> Iterator[None]:
    """The locks of QEMU's block/file-posix.c: one byte for each permission, of open file descriptions."""
    with image.open("r+b") as file:
        # struct flock of x86-64: type, whence, start, length, pid.
        lock = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 100, 210, 0)
        fcntl.fcntl(file.fileno(), 37, lock)  # F_OFD_SETLK
        yield


def test_a_port_that_is_in_use(qemu_binary: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        forward = ["-netdev", f"user,id=n0,hostfwd=tcp:127.0.0.1:{port}-:22"]
        assert "networks.N.forward" in refused(qemu_binary, [*TCG, *forward])
        assert "the port or address is in use" in refused(qemu_binary, [*TCG, "-vnc", f"127.0.0.1:{port - 5900}"])


def test_what_may_not_be_locked_or_opened(qemu_binary: str, base: Path) -> None:
    needs.root("giving up single capabilities")
    setpriv = needs.program("setpriv", "util-linux")
    prlimit = needs.program("prlimit", "util-linux")
    without = [setpriv, "--bounding-set", "-ipc_lock,-dac_override,-dac_read_search", "--inh-caps", "-all"]
    limited = [prlimit, "--memlock=65536", *without]
    locking = refused(qemu_binary, [*TCG, "-overcommit", "mem-lock=on"], prefix=limited)
    assert "the limit on locked memory is too low" in locking
    closed = base / "closed"
    closed.touch(mode=0)
    file = ["-blockdev", f"driver=file,node-name=a,filename={closed}"]
    assert "who can't open the file" in refused(qemu_binary, [*TCG, *file], prefix=without)


@pytest.mark.parametrize("device", ["/dev/vhost-net", "/dev/vhost-vsock"])
def test_a_device_of_vhost_that_is_not_there(device: str, qemu_binary: str) -> None:
    if Path(device).exists():
        # Then QEMU says what is published above.
        return
    if device == "/dev/vhost-vsock":
        assert "modprobe vhost_vsock" in refused(qemu_binary, [*TCG, "-device", "vhost-vsock-pci,guest-cid=77"])
        return
    needs.root("a tap interface")
    tap = ["-netdev", "tap,id=n0,ifname=sltest2,script=no,downscript=no,vhost=on"]
    assert "modprobe vhost_net" in refused(qemu_binary, [*TCG, *tap])
