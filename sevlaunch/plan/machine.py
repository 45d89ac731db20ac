"""Machine type, accelerator and CPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from sevlaunch.guest_type import EPYC_MODELS
from sevlaunch.plan.context import Context
from sevlaunch.plan.needs import NeededDevice, Needs
from sevlaunch.plan.option import Choice, Option, Parameter, fact, rule
from sevlaunch.plan.part import Part
from sevlaunch.remedies import MODULES

KVM = "/dev/kvm"

Accel = Literal["kvm", "tcg"]


class MachinePlan(Part, frozen=True, kw_only=True):
    """Machine type, accelerator and CPU. None of topology, smm and irqchip: as QEMU has it."""

    machine: Choice[str]
    accel: Choice[Accel]
    cpu_model: Choice[str]
    cpu_features: tuple[Choice[str], ...]
    vcpus: Choice[int]
    sockets: Choice[int] | None
    cores: Choice[int] | None
    threads: Choice[int] | None
    smm: Choice[bool] | None
    irqchip: Choice[str] | None
    vmport: Choice[bool]

    @property
    def needs(self) -> Needs:
        """KVM's device."""
        if self.accel.value != "kvm":
            return Needs()
        return Needs(devices=(NeededDevice(KVM, "KVM runs the guest.", MODULES[KVM], probed=True),))

    def machine_properties(self) -> Iterator[Parameter]:
        """The type and its switches."""
        yield self.machine.parameter("")
        if self.smm:
            yield self.smm.parameter("smm")
        if self.irqchip:
            yield self.irqchip.parameter("kernel-irqchip")
        yield self.vmport.parameter("vmport")

    def options(self) -> Iterator[Option]:
        """-accel, -cpu, -smp."""
        yield Option("-accel", (self.accel.parameter(""),))
        features = (
            Parameter(key, value, feature.reason)
            for feature in self.cpu_features
            for key, _, value in [feature.value.partition("=")]
        )
        yield Option("-cpu", (self.cpu_model.parameter(""), *features))
        topology = (("sockets", self.sockets), ("cores", self.cores), ("threads", self.threads))
        parts = (number.parameter(key) for key, number in topology if number)
        yield Option("-smp", (self.vcpus.parameter("cpus"), *parts))


def resolve_machine(context: Context) -> MachinePlan:
    """The machine for the profile, on the host's accelerator."""
    accel = _accel(context)
    cpu, security = context.profile.cpu, context.profile.security
    no_smm = Choice(False, rule("the registers of an SEV-ES guest can't be saved for SMM"))
    split = Choice("split", rule("SNP needs the interrupt controllers outside the kernel"))
    return MachinePlan(
        machine=_machine_type(context),
        accel=accel,
        cpu_model=_cpu_model(context, accel.value),
        cpu_features=tuple(context.choice(text, "cpu", "features", index) for index, text in enumerate(cpu.features)),
        vcpus=context.choice(cpu.count, "cpu", "count"),
        sockets=context.choice_or_none(cpu.sockets, "cpu", "sockets"),
        cores=context.choice_or_none(cpu.cores, "cpu", "cores"),
        threads=context.choice_or_none(cpu.threads, "cpu", "threads"),
        smm=None if security.has_smm else no_smm,
        irqchip=split if security.splits_irqchip else None,
        vmport=Choice(False, rule("the VMware port reads guest registers, which SEV-ES encrypts")),
    )


def _machine_type(context: Context) -> Choice[str]:
    wanted = context.profile.machine
    if wanted not in context.qemu.machines:
        q35 = sorted((name for name in context.qemu.machines if name.startswith("pc-q35-")), key=_version)
        known = f"{q35[0]} to {q35[-1]}" if q35 else "no q35 machine"
        context.lack(
            f"QEMU {context.qemu.version} has no machine {wanted!r}; it has {known}",
            hint="use machine: q35, or a QEMU that still has the version",
        )
    return context.choice(wanted, "machine")


def _version(machine: str) -> tuple[int, ...]:
    return tuple(int(part) for part in machine.rpartition("-")[2].split(".") if part.isdigit())


def _accel(context: Context) -> Choice[Accel]:
    wanted, kvm = context.profile.accel, context.host.kvm
    if context.profile.security.encrypted:
        return Choice("kvm", rule("an encrypted guest needs KVM"))
    if wanted != "auto":
        return context.choice(wanted, "accel")
    if not kvm.device.openable:
        problem = kvm.device.error or "not there"
        return Choice("tcg", fact(f"{kvm.device.path} can't be used: {problem}"))
    if not kvm.runs_firmware:
        return Choice("tcg", fact(f"the KVM of module {kvm.module or '(unknown)'} can't run firmware code"))
    return Choice("kvm", fact(f"{kvm.device.path} can be used, driven by {kvm.module}"))


def _cpu_model(context: Context, accel: str) -> Choice[str]:
    wanted = context.profile.cpu.model
    known = context.qemu.cpu_models
    if wanted != "auto":
        if wanted not in known:
            context.lack(
                f"QEMU {context.qemu.version} has no CPU model {wanted!r}",
                hint=f"known EPYC models: {', '.join(name for name in known if name.startswith('EPYC'))}",
            )
        return context.choice(wanted, "cpu", "model")
    if context.profile.security.encrypted:
        model = next((name for name in EPYC_MODELS if name in known), EPYC_MODELS[-1])
        return Choice(model, rule("a model that every SEV host can run; SEV-ES measures its signature"))
    if accel == "kvm":
        return Choice("host", rule("with KVM, the host's CPU"))
    return Choice("max", rule("with TCG, all that QEMU can emulate"))
