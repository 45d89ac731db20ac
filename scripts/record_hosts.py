"""Writes tests/hosts/: an EPYC Milan host with each QEMU of scripts/test-tools.

What QEMU knows is asked from the real binaries; the rest is what such a host has.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from msgspec.structs import replace

from sevlaunch.host.facts import CpuFacts, Device, Distribution, EncryptionLeaf, Folders, KvmFacts, MemoryFacts
from sevlaunch.host.firmware import parse_descriptor
from sevlaunch.host.firmware_facts import FirmwareImage
from sevlaunch.host.model import Host
from sevlaunch.host.qemu import qemu_facts

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
TOOLS = Path(os.environ.get("SEVLAUNCH_TOOLS") or CACHE / "sevlaunch/tools")
VERSIONS = ("7.2", "10.0", "11.1")

# CPUID 0x8000001F of an EPYC 7003: C-bit 51, 5 bits lost to the host, 509 encrypted guests, 99 of them with SEV-ES.
MILAN = EncryptionLeaf(eax=0x0101FD3F, ebx=0x00004173, ecx=509, edx=100)

DESCRIPTORS = {
    "/usr/share/qemu/firmware/50-edk2-x86_64-secure.json": {
        "description": "UEFI firmware for x86_64, with Secure Boot and SMM",
        "interface-types": ["uefi"],
        "mapping": {
            "device": "flash",
            "executable": {"filename": "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd", "format": "raw"},
            "nvram-template": {"filename": "/usr/share/OVMF/OVMF_VARS_4M.fd", "format": "raw"},
        },
        "targets": [{"architecture": "x86_64", "machines": ["pc-q35-*"]}],
        "features": ["acpi-s3", "amd-sev", "requires-smm", "secure-boot", "verbose-dynamic"],
    },
    "/usr/share/qemu/firmware/60-edk2-x86_64-amdsev.json": {
        "description": "UEFI firmware for x86_64, with SEV-ES support",
        "interface-types": ["uefi"],
        "mapping": {"device": "memory", "filename": "/usr/share/ovmf/OVMF.amdsev.fd"},
        "targets": [{"architecture": "x86_64", "machines": ["pc-q35-*"]}],
        "features": ["amd-sev", "amd-sev-es", "amd-sev-snp", "verbose-dynamic"],
    },
    "/usr/share/qemu/firmware/60-edk2-x86_64.json": {
        "description": "UEFI firmware for x86_64, without Secure Boot without SMM, with empty varstore",
        "interface-types": ["uefi"],
        "mapping": {
            "device": "flash",
            "executable": {"filename": "/usr/share/OVMF/OVMF_CODE_4M.fd", "format": "raw"},
            "nvram-template": {"filename": "/usr/share/OVMF/OVMF_VARS_4M.fd", "format": "raw"},
        },
        "targets": [{"architecture": "x86_64", "machines": ["pc-i440fx-*", "pc-q35-*"]}],
        "features": ["acpi-s3", "amd-sev", "verbose-dynamic"],
    },
}

# What stands in the images: those of Debian 12, and the OVMF.amdsev.fd of 2026.08.
IMAGES = [
    FirmwareImage(path="/usr/share/OVMF/OVMF_CODE_4M.secboot.fd", es_reset_vector=0x808004),
    FirmwareImage(path="/usr/share/OVMF/OVMF_CODE_4M.fd", es_reset_vector=0x808004),
    FirmwareImage(path="/usr/share/OVMF/OVMF_VARS_4M.fd"),
    FirmwareImage(
        path="/usr/share/ovmf/OVMF.amdsev.fd",
        es_reset_vector=0x80B004,
        hashes_table=True,
        secret_area=True,
        snp_pages=[1, 2, 3, 4, 16],
    ),
]


def milan(version: str) -> Host:
    """The host with one version of QEMU."""
    facts = qemu_facts(str(TOOLS / f"qemu-{version}" / "qemu-system-x86_64"))
    parsed = [parse_descriptor(content, file) for file, content in DESCRIPTORS.items()]
    return Host(
        hostname="milan",
        kernel="6.12.0",
        user="root",
        cpu=CpuFacts(
            vendor="AuthenticAMD",
            name="AMD EPYC 7763 64-Core Processor",
            family=25,
            model=1,
            stepping=1,
            count=16,
            allowed=list(range(16)),
            read_by="the CPUID instruction",
            encryption=MILAN,
        ),
        kvm=KvmFacts(
            module="kvm_amd",
            most_vcpus=1024,
            parameters={"kvm_amd.sev": "Y", "kvm_amd.sev_es": "Y", "kvm_amd.sev_snp": "Y"},
            device=Device(path="/dev/kvm", exists=True, mode="0660", owner="root", group="kvm", openable=True),
            sev_device=Device(path="/dev/sev", exists=True, mode="0600", owner="root", group="root", openable=True),
        ),
        qemu=replace(facts, binary="/usr/bin/qemu-system-x86_64"),
        firmware=[descriptor for descriptor in parsed if descriptor],
        firmware_images=IMAGES,
        distribution=Distribution(id="debian", version="12", name="Debian GNU/Linux 12 (bookworm)"),
        memory=MemoryFacts(
            total=256 << 30, available=200 << 30, memlock_soft=8 << 20, memlock_hard=8 << 20, can_raise_memlock=True
        ),
        folders=Folders(runtime="/run/sevlaunch", state="/var/lib/sevlaunch"),
    )


def main() -> None:
    """Write the hosts that are named on the command line."""
    parser = argparse.ArgumentParser(prog="record-hosts", description=__doc__)
    parser.add_argument("versions", nargs="*", metavar="VERSION", help=f"of QEMU; default: {', '.join(VERSIONS)}")
    parser.add_argument("--folder", type=Path, default=ROOT / "tests/hosts", help="default: tests/hosts")
    options = parser.parse_args()
    unknown = set(options.versions) - set(VERSIONS)
    if unknown:
        parser.error(f"no QEMU {', '.join(sorted(unknown))}; there are {', '.join(VERSIONS)}")
    options.folder.mkdir(parents=True, exist_ok=True)
    for version in options.versions or VERSIONS:
        file = options.folder / f"milan-qemu-{version}.json"
        file.write_text(milan(version).to_json() + "\n")
        print(f"{file} written")


if __name__ == "__main__":
    main()
