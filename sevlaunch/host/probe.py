"""This machine -> Host."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from pathlib import Path

from sevlaunch.errors import HostError
from sevlaunch.host import cpuid
from sevlaunch.host.devices import device_facts, user_name
from sevlaunch.host.firmware import folders, read_descriptors
from sevlaunch.host.folders import runtime_folder, state_folder
from sevlaunch.host.memory import memory_facts
from sevlaunch.host.model import CpuFacts, EncryptionLeaf, Folders, Host, KvmFacts
from sevlaunch.host.qemu import find_binary, qemu_facts
from sevlaunch.host.source import Source

# What /proc/cpuinfo lists only where the kernel lets it be used, whatever CPUID says.
FLAGS = ("svm", "vmx", "sme", "sev", "sev_es", "sev_snp")


def probe_host(
    qemu_binary: str = "auto",
    *,
    runtime: Path | None = None,
    state: Path | None = None,
    source: Source | None = None,
    thorough: bool = False,
) -> Host:
    """What this machine offers. A QEMU that is missing is noted, not raised: a plan needs it, a look at the host not.

    :param qemu_binary: the QEMU to ask, or ``auto``.
    :param runtime: the folder of running guests instead of the user's own.
    :param state: the folder of what outlives them instead of the user's own.
    :param source: another machine's recording instead of this machine.
    :param thorough: look at what only the doctor wants to know, too.
    """
    source = source or Source()
    qemu, qemu_problem = None, ""
    try:
        qemu = qemu_facts(find_binary(qemu_binary))
    except HostError as error:
        qemu_problem = error.message
    descriptors, firmware_problems = read_descriptors([source.path(str(folder)) for folder in folders()])
    machine = platform.uname()
    platform_facts = None
    if thorough:
        # Imported for the doctor only: every other command starts quicker without it.
        from sevlaunch.host.surroundings import platform_facts as look_around

        platform_facts = look_around(source, descriptors)
    return Host(
        hostname=machine.node,
        kernel=source.text("/proc/sys/kernel/osrelease") or machine.release,
        architecture=machine.machine,
        user=user_name(os.geteuid()),
        cpu=_cpu(source),
        kvm=_kvm(source),
        qemu=qemu,
        qemu_problem=qemu_problem,
        firmware=descriptors,
        firmware_problems=firmware_problems,
        memory=memory_facts(source),
        platform=platform_facts,
        folders=Folders(runtime=str(runtime or runtime_folder()), state=str(state or state_folder())),
    )


def _cpu(source: Source) -> CpuFacts:
    flags = _kernel_flags(source)
    try:
        read, read_by = source.cpuid()
    except OSError as error:
        return CpuFacts(read_by=f"not read: {error}", count=len(os.sched_getaffinity(0)), kernel_flags=flags)
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
    if highest >= cpuid.ENCRYPTION_LEAF:
        registers = read(cpuid.ENCRYPTION_LEAF, 0)
        encryption = EncryptionLeaf(**registers._asdict()) if any(registers) else None
    return CpuFacts(
        vendor=vendor,
        name=name,
        family=family,
        model=model,
        stepping=signature & 0xF,
        count=len(os.sched_getaffinity(0)),
        read_by=read_by,
        instruction_cbitpos=read(cpuid.ENCRYPTION_LEAF, 0).ebx & 0x3F,
        encryption=encryption,
        hypervisor=bool(processor.ecx >> 31),
        kernel_flags=flags,
    )


def _kernel_flags(source: Source) -> list[str] | None:
    # Line by line: with hundreds of CPUs, the kernel takes a while to write the whole file.
    with suppress(OSError), source.path("/proc/cpuinfo").open() as stream:
        for line in stream:
            key, _, value = line.partition(":")
            if key.strip() == "flags":
                words = set(value.split())
                return [flag for flag in FLAGS if flag in words]
    return None


def _kvm(source: Source) -> KvmFacts:
    holders = source.names("/sys/module/kvm/holders")
    # With KVM built into the kernel there are no holders, only the modules' parameters.
    modules = holders or [name for name in source.names("/sys/module") if name.startswith("kvm_")]
    parameters: dict[str, str] = {}
    for module in ("kvm", *modules):
        folder = f"/sys/module/{module}/parameters"
        for name in source.names(folder):
            text = source.text(f"{folder}/{name}")
            parameters[f"{module}.{name}"] = "(not readable)" if text is None else text
    return KvmFacts(
        module=modules[0] if modules else "",
        parameters=parameters,
        device=device_facts(source, "/dev/kvm"),
        sev_device=device_facts(source, "/dev/sev"),
    )
