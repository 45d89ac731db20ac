"""The processor of a machine."""

from __future__ import annotations

import os
from contextlib import suppress

from sevlaunch.host.facts import CpuFacts, EncryptionLeaf
from sevlaunch.host.system import System

# What /proc/cpuinfo lists only where the kernel lets it be used, whatever CPUID says.
FLAGS = ("svm", "vmx", "sme", "sev", "sev_es", "sev_snp")


def cpu_facts(system: System, *, ordinary: bool = False) -> CpuFacts:
    """The processor, by CPUID and by what the kernel makes of it; for an ordinary guest, how many CPUs there are."""
    if ordinary:
        allowed = sorted(os.sched_getaffinity(0))
        return CpuFacts(count=len(allowed), allowed=allowed)
    from sevlaunch.host.cpuid import ENCRYPTION_LEAF

    flags, allowed = _kernel_flags(system), sorted(os.sched_getaffinity(0))
    try:
        read, read_by = system.cpuid()
    except OSError as error:
        return CpuFacts(read_by=f"not read: {error}", count=len(allowed), allowed=allowed, kernel_flags=flags)
    base = read(0, 0)
    vendor = b"".join(number.to_bytes(4, "little") for number in (base.ebx, base.edx, base.ecx)).decode(
        "ascii", "replace"
    )
    processor = read(1, 0)
    signature = processor.eax
    family, model = signature >> 8 & 0xF, signature >> 4 & 0xF
    if family in (0x6, 0xF):
        model |= (signature >> 16 & 0xF) << 4
    if family == 0xF:
        family += signature >> 20 & 0xFF
    highest = read(0x80000000, 0).eax
    name = ""
    if highest >= 0x80000004:
        leaves = [number for leaf in range(0x80000002, 0x80000005) for number in read(leaf, 0)]
        name = (
            b"".join(number.to_bytes(4, "little") for number in leaves).rstrip(b"\0").decode("ascii", "replace").strip()
        )
    encryption = None
    if highest >= ENCRYPTION_LEAF:
        registers = read(ENCRYPTION_LEAF, 0)
        encryption = EncryptionLeaf(**registers._asdict()) if any(registers) else None
    return CpuFacts(
        vendor=vendor,
        name=name,
        family=family,
        model=model,
        stepping=signature & 0xF,
        count=len(allowed),
        allowed=allowed,
        read_by=read_by,
        instruction_cbitpos=read(ENCRYPTION_LEAF, 0).ebx & 0x3F,
        encryption=encryption,
        hypervisor=bool(processor.ecx >> 31),
        kernel_flags=flags,
    )


def _kernel_flags(system: System) -> list[str] | None:
    # Line by line: with hundreds of CPUs, the kernel takes a while to write the whole file.
    with suppress(OSError), system.path("/proc/cpuinfo").open() as stream:
        for line in stream:
            key, _, value = line.partition(":")
            if key.strip() == "flags":
                words = set(value.split())
                return [flag for flag in FLAGS if flag in words]
    return None
