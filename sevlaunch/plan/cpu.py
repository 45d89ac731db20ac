"""The guest's CPU: its model, its properties, how many vCPUs there are and how they are arranged."""

from __future__ import annotations

import re
from collections.abc import Iterator

from sevlaunch.guest_type import EPYC_MODELS
from sevlaunch.plan.context import Context
from sevlaunch.plan.needs import Needs
from sevlaunch.plan.option import Choice, Option, Parameter, rule
from sevlaunch.plan.part import Part
from sevlaunch.plan.topology import arranged, highest_apic_id, most_vcpus
from sevlaunch.units import format_ranges, format_size, parse_ranges

# The last number of an interrupt controller that 8 bits can address; 255 is all of them.
LAST_XAPIC_ID = 254
# What the interrupt controllers of TCG can't do in older ones: commit b5ee0468e9d2, "x2APIC".
TCG_X2APIC = (9, 0)
# Physical addresses have 40 bits where nothing else is said. On AMD's CPUs, what would reach into the last 12 GiB of
# them lies above 1 TiB (QEMU's hw/i386/pc.c, pc_set_amd_above_4g_mem_start()), beside a PCI hole of 32 GiB.
_REACHED_WITH_40_BITS = 960 << 30
# Of a guest whose CPU TCG emulates: what four levels of page tables reach.
_TCG_BITS = 48
_SWITCH = r"on|off|yes|no|true|false|y|n"
_NUMBER = r"-?(0[xX][0-9a-fA-F]+|[0-9]+)"
# Read by QEMU's x86_cpu_parse_featurestr(), and no property.
_SPELLINGS = ("tsc-freq",)


class CpuPlan(Part, frozen=True, kw_only=True):
    """``topology``: the levels of it, by QEMU's names; empty: as QEMU has it. ``features``: as key=value.

    ``pins``: the CPUs of the host that each vCPU may run on; empty: all. ``of_another``: QEMU runs as another user.
    """

    model: Choice[str]
    features: tuple[Choice[str], ...]
    vcpus: Choice[int]
    most: Choice[int] | None
    topology: tuple[tuple[str, Choice[int]], ...]
    pins: tuple[Choice[str], ...]
    of_another: bool

    @property
    def needs(self) -> Needs:
        """To pin threads of another user."""
        return Needs(capabilities=("CAP_SYS_NICE",) if self.pins and self.of_another else ())

    def options(self) -> Iterator[Option]:
        """-cpu, -smp."""
        features = (
            Parameter(key, value, feature.reason)
            for feature in self.features
            for key, _, value in [feature.value.partition("=")]
        )
        yield Option("-cpu", (self.model.parameter(""), *features))
        most = (self.most.parameter("maxcpus"),) if self.most else ()
        levels = (count.parameter(level) for level, count in self.topology)
        yield Option("-smp", (self.vcpus.parameter("cpus"), *most, *levels))


def resolve_cpu(context: Context, accel: str) -> CpuPlan:
    """The CPU for the profile, with the accelerator that was chosen."""
    cpu = context.profile.cpu
    _check_count(context, accel)
    _check_features(context)
    own = tuple(context.choice(text, "cpu", "features", index) for index, text in enumerate(cpu.features))
    return CpuPlan(
        model=_model(context, accel),
        features=(*own, *_wider_addresses(context, accel), *_wider_interrupts(context, accel)),
        vcpus=context.choice(cpu.count, "cpu", "count"),
        most=context.choice_or_none(cpu.maxcpus, "cpu", "maxcpus"),
        topology=tuple(_topology(context)),
        pins=tuple(_pins(context)),
        of_another=context.other_user is not None,
    )


def _model(context: Context, accel: str) -> Choice[str]:
    wanted = context.profile.cpu.model
    known = context.qemu.cpu_models
    if wanted != "auto":
        if wanted not in known:
            context.lack(
                f"QEMU {context.qemu.version} has no CPU model {wanted!r}",
                hint=f"known EPYC models: {', '.join(name for name in known if name.startswith('EPYC'))}",
            )
        if wanted == "host" and accel == "tcg":
            context.lack(
                "cpu.model asks for the host's own CPU, which takes KVM, and there is none",
                hint="use model: max, all that TCG can emulate, or leave it at auto",
            )
        return context.choice(wanted, "cpu", "model")
    if context.profile.security.encrypted:
        model = next((name for name in EPYC_MODELS if name in known), EPYC_MODELS[-1])
        return Choice(model, rule("a model that every SEV host can run; SEV-ES measures its signature"))
    if accel == "kvm":
        return Choice("host", rule("with KVM, the host's CPU"))
    return Choice("max", rule("with TCG, all that QEMU can emulate"))


def _topology(context: Context) -> Iterator[tuple[str, Choice[int]]]:
    cpu = context.profile.cpu
    given = [level for level in ("sockets", "dies", "modules", "cores", "threads") if getattr(cpu, level) is not None]
    if not given:
        return
    if "modules" in given and context.qemu.topology and "modules" not in context.qemu.topology:
        context.lack(
            f"cpu.modules came with QEMU 9.1, and this is QEMU {context.qemu.version}",
            hint="leave modules out, or set qemu.binary",
        )
    whole, default = arranged(cpu), f"what is left of {most_vcpus(cpu)} vCPUs"
    for level in ("sockets", *(one for one in ("dies", "modules") if one in given), "cores", "threads"):
        yield level, context.choice(getattr(whole, level), "cpu", level, default=default)


def _pins(context: Context) -> Iterator[Choice[str]]:
    cpu = context.profile.cpu
    if cpu.pin is None:
        return
    known, allowed = context.host.memory.node_cpus, context.host.cpu.allowed
    nodes: list[int] = []
    for index in range(cpu.count):
        if cpu.pin == "auto":
            nodes = _near(context, index)
            near = [number for node in nodes for number in known.get(str(node), ())]
            wanted = [number for number in near if not allowed or number in allowed]
            pinned = context.choice(format_ranges(wanted), "cpu", "pin")
        else:
            wanted = parse_ranges(cpu.pin[index])
            pinned = context.choice(cpu.pin[index], "cpu", "pin", index)
        missing = [number for number in wanted if allowed and number not in allowed]
        if missing or not wanted:
            found = f"may run on {format_ranges(allowed)}" if wanted else "none is known there"
            what = f"CPU {format_ranges(missing)}" if missing else f"a CPU of NUMA node {format_ranges(nodes)}"
            context.lack(f"cpu.pin: vCPU {index} asks for {what}, and {found}", hint="see taskset -p $$, and lscpu")
            return
        yield pinned


def _near(context: Context, vcpu: int) -> list[int]:
    """The NUMA nodes of the host that the vCPU's memory comes from."""
    for node in context.profile.numa:
        if node.host_node is not None and node.cpus and vcpu in parse_ranges(node.cpus):
            return [node.host_node]
    return context.profile.memory.nodes


def _check_count(context: Context, accel: str) -> None:
    """Note a problem where machine type or KVM has no room for so many."""
    wanted, qemu = most_vcpus(context.profile.cpu), context.qemu
    machine = context.machine_type
    most = qemu.most_cpus.get(machine)
    if most is not None and wanted > most:
        largest = max(qemu.most_cpus, key=lambda name: (qemu.most_cpus[name], name == qemu.machines.get("q35")))
        more = qemu.most_cpus[largest]
        context.lack(
            f"the machine {machine} of QEMU {qemu.version} has at most {most} vCPUs, the profile asks for {wanted}",
            hint=f"use machine: {largest}, which has up to {more}" if more >= wanted else "use fewer, or a newer QEMU",
        )
    kvm = context.host.kvm.most_vcpus
    if accel == "kvm" and kvm is not None and wanted > kvm:
        context.lack(
            f"this kernel's KVM has at most {kvm} vCPUs for a guest, the profile asks for {wanted}",
            hint="use fewer, or a kernel with a larger CONFIG_KVM_MAX_NR_VCPUS",
        )


def _check_features(context: Context) -> None:
    known = context.qemu.cpu_properties
    for index, text in enumerate(context.profile.cpu.features if known else ()):
        key, _, value = text.partition("=")
        # QEMU's feat2prop() does the same.
        kind = known.get(key.replace("_", "-"))
        if kind is None:
            if key not in _SPELLINGS:
                context.lack(
                    f"QEMU {context.qemu.version} has no CPU property {key!r}, which cpu.features.{index} sets",
                    hint="its names are those of `qemu-system-x86_64 -cpu help`, with = behind: x2apic=on",
                )
        elif kind == "bool" and not re.fullmatch(_SWITCH, value):
            context.refuse(f"wanted {key}=on or {key}=off, found {text!r}", "cpu", "features", index)
        elif "int" in kind and not re.fullmatch(_NUMBER, value):
            context.refuse(f"wanted a number for {key}, found {text!r}", "cpu", "features", index)


def _wider_addresses(context: Context, accel: str) -> Iterator[Choice[str]]:
    size = context.profile.memory.size
    set_here = {text.partition("=")[0] for text in context.profile.cpu.features}
    if size <= _REACHED_WITH_40_BITS or set_here & {"phys-bits", "host-phys-bits"}:
        return
    bits = f"phys-bits={_TCG_BITS}" if accel == "tcg" else "host-phys-bits=on"
    yield Choice(bits, rule(f"{format_size(size)} of memory does not fit into addresses of 40 bits"))


def _wider_interrupts(context: Context, accel: str) -> Iterator[Choice[str]]:
    """What vCPUs with numbers over 254 take; the controllers outside KVM, and a vIOMMU, are chosen elsewhere."""
    if (highest := highest_apic_id(context.profile.cpu)) <= LAST_XAPIC_ID:
        return
    if accel == "tcg" and context.qemu.release < TCG_X2APIC:
        context.lack(
            f"QEMU {context.qemu.version} has no x2APIC without KVM: a vCPU's number {highest} is over {LAST_XAPIC_ID}",
            hint="use fewer vCPUs, KVM, or QEMU 9.0 and newer",
        )
        return
    set_here = {text.partition("=")[0] for text in context.profile.cpu.features}
    if "x2apic" not in set_here:
        yield Choice("x2apic=on", rule(f"vCPUs have numbers up to {highest}, and an APIC without x2 reaches 254"))
    if accel == "kvm" and "kvm-msi-ext-dest-id" not in set_here:
        yield Choice("kvm-msi-ext-dest-id=on", rule("Linux reaches all vCPUs with interrupts of devices by it"))
