"""Recorded machines: tests/machines/*.yaml, unpacked as a root folder with CPUID and the answers of devices."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path
from typing import Any

import yaml
from msgspec.structs import replace

from sevlaunch.host.cpuid import ENCRYPTION_LEAF, Reader, Registers
from sevlaunch.host.model import Host
from sevlaunch.host.system import System
from tests.conftest import HOSTS, ROOT

MACHINES = ROOT / "tests/machines"
NAMES = sorted(path.stem for path in MACHINES.glob("*.yaml"))
_KVM_GET_API_VERSION = 0xAE00
_KVM_CAP_MAX_VCPUS = 66
_MSR_SYSCFG = 0xC0010010


def machine(name: str, root: Path) -> Host:
    """The recorded machine, as the probe sees it. QEMU and firmware are those of the recorded Milan host."""
    described = yaml.safe_load((MACHINES / f"{name}.yaml").read_text())
    installed = Host.load(HOSTS / "milan-qemu-10.0.json")
    host = Host.probe(system=source(described, root), thorough=True)
    # Root can open everything here; who the user is does not matter.
    return replace(host, qemu=installed.qemu, firmware=installed.firmware, qemu_problem="")


def source(described: dict[str, Any], root: Path) -> System:
    """The source of a machine that is described as in tests/machines."""
    for path, content in described["files"].items():
        file = root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    if "syscfg" in described:
        file = root / "dev/cpu/0/msr"
        file.parent.mkdir(parents=True)
        # A sparse file: an MSR is read at its number.
        with file.open("wb") as stream:
            os.pwrite(stream.fileno(), described["syscfg"].to_bytes(8, "little"), _MSR_SYSCFG)

    def sev_command(device: Path, command: int, size: int) -> bytes:
        answer = {1: _sev_status, 9: _snp_status}[command](described)
        if not device.exists():
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        if answer is None:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        assert len(answer) == size
        return answer

    def kvm_ioctl(device: Path, request: int, argument: int) -> int:
        if not device.exists():
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        if request == _KVM_GET_API_VERSION:
            return 12
        return int(described.get("most_vcpus" if argument == _KVM_CAP_MAX_VCPUS else "vm_types", 0))

    def kvm_attribute(device: Path, group: int, attribute: int) -> int:
        if not device.exists():
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        if (group, attribute) != (1, 1) or "snp_policy_bits" not in described:
            raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
        return int(described["snp_policy_bits"])

    return System(
        root=root,
        cpuid=lambda: (_cpuid(described), "a recording"),
        sev_command=sev_command,
        kvm_ioctl=kvm_ioctl,
        kvm_attribute=kvm_attribute,
        limits=lambda number: (8 << 20, 8 << 20),
    )


def _cpuid(described: dict[str, Any]) -> Reader:
    vendor = struct.unpack("<3I", described["vendor"].encode())
    name = described["name"].encode().ljust(48, b"\0")
    leaves = {
        0: Registers(16, vendor[0], vendor[2], vendor[1]),
        1: Registers(described["signature"], 0, described.get("hypervisor", 0) << 31, 0),
        0x80000000: Registers(0x80000021 if described["vendor"] == "AuthenticAMD" else 0x80000008, 0, 0, 0),
        ENCRYPTION_LEAF: Registers(*described.get("encryption", (0, 0, 0, 0))),
    }
    for index in range(3):
        leaves[0x80000002 + index] = Registers(*struct.unpack_from("<4I", name, 16 * index))
    return lambda leaf, subleaf: leaves.get(leaf, Registers(0, 0, 0, 0))


def _sev_status(described: dict[str, Any]) -> bytes | None:
    # linux/psp-sev.h, struct sev_user_data_status.
    told = described.get("sev_status")
    if not told:
        return None
    return struct.pack("<BBBIBI", *told["api"], told["state"], 0x100 * told["es"], told["build"], told["guests"])


def _snp_status(described: dict[str, Any]) -> bytes | None:
    # linux/psp-sev.h, struct sev_user_data_snp_status.
    told = described.get("snp_status")
    if not told:
        return None
    head = struct.pack("<BBBBIII", *told["api"], told["state"], told["rmp"], told["build"], 0, told["guests"])
    return head + struct.pack("<QQ", told["current"], told["reported"])
