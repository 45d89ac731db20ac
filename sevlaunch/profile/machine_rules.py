"""Rules about the machine: its type, its vCPUs and their topology, CPU models and their properties."""

from __future__ import annotations

from collections.abc import Iterator

from sevlaunch.profile.cpu_models import COMPLEX_INDEXING, HOST_CACHE, has_local_apic, is_32_bit, reaches_4_gib
from sevlaunch.profile.machine_types import is_i440fx, why_unusable
from sevlaunch.profile.model import Cpu, Profile, SnpSecurity
from sevlaunch.profile.violation import Violation

# Of the physical addresses of models without long mode: 32 bits, or 36 with PAE.
_REACH = {True: 4 << 30, False: 64 << 30}
# What lies beside memory in these addresses: the PCI hole, firmware and interrupt controllers.
_BESIDE = 2 << 30
_LOCAL_APIC = "apic=on"
# QEMU's target/i386/cpu.c, x86_cpu_realizefn(); 0 leaves them to QEMU.
_PHYS_BITS = range(32, 53)


def check_machine(profile: Profile) -> Iterator[Violation]:
    """Every rule about the machine that ``profile`` breaks."""
    yield from _type(profile)
    yield from _model(profile)
    yield from _properties(profile)
    yield from _counts(profile.cpu)
    yield from _pins(profile)
    yield from _iommu(profile)


def check_machine_cautions(profile: Profile) -> Iterator[Violation]:
    """What a profile's user should know of the machine that it asks for."""
    cpu, security = profile.cpu, profile.security
    if cpu.maxcpus is not None and cpu.maxcpus > cpu.count and security.encrypts_registers:
        yield Violation(
            ("cpu", "maxcpus"),
            f"the registers of a {security.type} guest's vCPUs are encrypted at its launch: none can be added later, "
            f"and what is over cpu.count {cpu.count} stays empty",
        )


def _type(profile: Profile) -> Iterator[Violation]:
    machine = profile.machine
    why = why_unusable(machine)
    if profile.security.encrypted and (why or is_i440fx(machine)):
        yield Violation(
            ("machine",), f"an encrypted guest needs a q35 machine, found {machine!r}: use q35", (("security",),)
        )
    elif why:
        yield Violation(("machine",), f"no guest can have the machine {machine!r}: {why}; use q35, or pc")


def _model(profile: Profile) -> Iterator[Violation]:
    model = profile.cpu.model
    if model == "host" and profile.accel == "tcg":
        yield Violation(
            ("cpu", "model"),
            "the host's own CPU takes KVM: use accel: kvm, or model: max, all that TCG can emulate",
            (("accel",),),
        )
    refused = isinstance(profile.security, SnpSecurity) and model in COMPLEX_INDEXING
    if refused and HOST_CACHE not in profile.cpu.features:
        yield Violation(
            ("cpu", "model"),
            f"a sev-snp guest can't have {model}: the secure processor refuses what it says of its cache "
            f"(CPUID 0x8000001D): use {COMPLEX_INDEXING[model]}, or leave model at auto",
            (("cpu", "features"),),
        )
    if not has_local_apic(model) and _LOCAL_APIC not in profile.cpu.features:
        yield Violation(
            ("cpu", "model"),
            f"{model} has no local APIC, which firmware and PCI Express devices need: use another model, or add "
            f"{_LOCAL_APIC} to cpu.features",
            (("cpu", "features"),),
        )
    if is_32_bit(model):
        if profile.security.encrypted:
            yield Violation(
                ("cpu", "model"),
                f"{model} has no long mode, which an encrypted guest runs in: leave model at auto",
                (("security",),),
            )
        reach = _REACH[reaches_4_gib(model)]
        if profile.memory.size > reach - _BESIDE:
            yield Violation(
                ("memory", "size"),
                f"{model} has no long mode and reaches {reach >> 30} GiB of addresses, of which memory can have "
                f"{reach - _BESIDE >> 30}G: use less, or another cpu.model",
                (("cpu", "model"),),
            )


def _properties(profile: Profile) -> Iterator[Violation]:
    cpu = profile.cpu
    for index, feature in enumerate(cpu.features):
        key, _, value = feature.partition("=")
        if key != "phys-bits":
            continue
        path = ("cpu", "features", index)
        if not value.isdigit() or (int(value) and int(value) not in _PHYS_BITS):
            bounds = f"{_PHYS_BITS.start} to {_PHYS_BITS.stop - 1}"
            yield Violation(path, f"wanted {bounds} bits, or 0 for QEMU's own, found phys-bits={value}")
        elif is_32_bit(cpu.model):
            yield Violation(
                path,
                f"the physical addresses of {cpu.model}, which has no long mode, can't be changed: leave phys-bits out",
                (("cpu", "model"),),
            )


_LEVELS = ("sockets", "dies", "modules", "cores", "threads")
# QEMU has one of the others where a profile does not say; of these it makes what is missing.
_FILLED = ("sockets", "cores", "threads")


def _counts(cpu: Cpu) -> Iterator[Violation]:
    if cpu.maxcpus is not None and cpu.maxcpus < cpu.count:
        yield Violation(
            ("cpu", "maxcpus"),
            f"maxcpus {cpu.maxcpus} leaves no room for the {cpu.count} vCPUs of cpu.count",
            (("cpu", "count"),),
        )
        return
    parts = {key: getattr(cpu, key) for key in _LEVELS if getattr(cpu, key) is not None}
    product = 1
    for number in parts.values():
        product *= number
    key, most = ("count", cpu.count) if cpu.maxcpus is None else ("maxcpus", cpu.maxcpus)
    if (all(level in parts for level in _FILLED) and product != most) or (parts and most % product):
        shown = " x ".join(f"{number} {level}" for level, number in parts.items())
        yield Violation(
            ("cpu", next(iter(parts))),
            f"{shown} makes {product}, which does not fit cpu.{key} {most}",
            tuple(("cpu", key) for key in ("count", "maxcpus", *_LEVELS)),
        )


def _pins(profile: Profile) -> Iterator[Violation]:
    pin, count = profile.cpu.pin, profile.cpu.count
    if pin == "auto":
        near = [node.host_node for node in profile.numa if node.cpus]
        if not profile.memory.nodes and (not near or None in near):
            # What an SNP guest can't have is no advice.
            snp = isinstance(profile.security, SnpSecurity)
            way = "" if snp else "use memory.nodes, host_node for each entry of numa that has vCPUs, or "
            yield Violation(
                ("cpu", "pin"),
                f"auto keeps vCPUs near their memory, and nothing says which NUMA node that comes from: {way}list CPUs",
                (("memory", "nodes"), ("numa",), ("security", "type")),
            )
    elif pin is not None and len(pin) != count:
        yield Violation(
            ("cpu", "pin"), f"wanted an entry for each of {count} vCPUs, found {len(pin)}", (("cpu", "count"),)
        )


def _iommu(profile: Profile) -> Iterator[Violation]:
    iommu = profile.iommu
    if iommu.type in ("intel", "virtio") and profile.security.encrypted:
        yield Violation(
            ("iommu", "type"),
            "an encrypted guest can't have an IOMMU: QEMU can't read its tables in the guest's memory, nor the "
            "buffers that it would lead devices to; leave it out, more than 255 vCPUs need none",
            (("security",),),
        )
    if iommu.type == "intel" and is_i440fx(profile.machine):
        yield Violation(
            ("iommu", "type"), f"{profile.machine} has no place for Intel's IOMMU: use machine: q35", (("machine",),)
        )
    for key, said in (("translation", iommu.translation is not None), ("caching_mode", iommu.caching_mode)):
        if said and iommu.type != "intel":
            yield Violation(("iommu", key), f"{key} is for type intel, found type {iommu.type}", (("iommu", "type"),))
