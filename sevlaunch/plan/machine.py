"""Machine type and accelerator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from sevlaunch.plan.context import Context
from sevlaunch.plan.cpu import LAST_XAPIC_ID
from sevlaunch.plan.needs import NeededDevice, Needs
from sevlaunch.plan.option import Choice, Option, Parameter, fact, rule
from sevlaunch.plan.part import Part
from sevlaunch.plan.topology import highest_apic_id, most_vcpus
from sevlaunch.remedies import MODULES

KVM = "/dev/kvm"
# QEMU's hw/smbios/smbios.c refuses from here on, where it looks.
MOST_OF_SMBIOS_2 = 255
# QEMU's hw/core/machine.c, hw_compat_2_6: virtio-pci.disable-modern=on.
FIRST_MODERN = (2, 7)

Accel = Literal["kvm", "tcg"]


class MachinePlan(Part, frozen=True, kw_only=True):
    """Machine type and accelerator. None of smm, irqchip, smbios and hpet: as QEMU has it."""

    machine: Choice[str]
    accel: Choice[Accel]
    smm: Choice[bool] | None
    irqchip: Choice[str] | None
    smbios: Choice[str] | None
    hpet: Choice[bool] | None
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
        if self.smbios:
            yield self.smbios.parameter("smbios-entry-point-type")
        if self.hpet:
            yield self.hpet.parameter("hpet")
        yield self.vmport.parameter("vmport")

    def options(self) -> Iterator[Option]:
        """-accel."""
        yield Option("-accel", (self.accel.parameter(""),))


def resolve_machine(context: Context) -> MachinePlan:
    """The machine for the profile, on the host's accelerator."""
    accel = _accel(context)
    return MachinePlan(
        machine=_machine_type(context),
        accel=accel,
        smm=_smm(context),
        irqchip=_irqchip(context, accel.value),
        smbios=_smbios(context),
        hpet=None if context.profile.clock.hpet else context.choice(False, "clock", "hpet"),
        vmport=Choice(False, rule("the VMware port reads guest registers, which SEV-ES encrypts")),
    )


def _smm(context: Context) -> Choice[bool] | None:
    if not context.profile.security.has_smm:
        return Choice(False, rule("the registers of an SEV-ES guest can't be saved for SMM"))
    return None if context.profile.smm else context.choice(False, "smm")


def _irqchip(context: Context, accel: Accel) -> Choice[str] | None:
    if context.profile.security.splits_irqchip:
        return Choice("split", rule("SNP needs the interrupt controllers outside the kernel"))
    if accel != "kvm":
        return None
    if context.profile.iommu.type == "intel":
        return context.choice("split", "iommu", "type")
    if highest_apic_id(context.profile.cpu) > LAST_XAPIC_ID:
        return Choice("split", rule("devices reach vCPUs over 254 through an interrupt controller outside the kernel"))
    return None


def _smbios(context: Context) -> Choice[str] | None:
    if most_vcpus(context.profile.cpu) < MOST_OF_SMBIOS_2:
        return None
    return Choice("64", rule(f"the tables of SMBIOS 2 count fewer than {MOST_OF_SMBIOS_2} vCPUs"))


def _machine_type(context: Context) -> Choice[str]:
    wanted = context.profile.machine
    if wanted not in context.qemu.machines:
        q35 = sorted((name for name in context.qemu.machines if name.startswith("pc-q35-")), key=_version)
        known = f"{q35[0]} to {q35[-1]}" if q35 else "no q35 machine"
        context.lack(
            f"QEMU {context.qemu.version} has no machine {wanted!r}; it has {known}",
            hint="use machine: q35, or a QEMU that has it: set qemu.binary",
        )
    elif context.profile.security.encrypted and not context.qemu.machines[wanted].startswith("pc-q35-"):
        found = context.qemu.machines[wanted]
        context.refuse(f"an encrypted guest needs a q35 machine, and {wanted} is {found}", "machine", hint="use q35")
    version = _version(context.qemu.machines.get(wanted, ""))
    if version and version < FIRST_MODERN:
        context.lack(
            f"virtio devices of the machine {wanted} speak the protocol from before 1.0 alone, which has no DMA API",
            hint="use machine: q35, or a type from 2.7 on",
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
