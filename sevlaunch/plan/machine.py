"""Machine type, accelerator and CPU."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from sevlaunch.plan.context import Context
from sevlaunch.plan.option import Choice, Option, Parameter, fact, rule
from sevlaunch.profile.cpu_models import EPYC_MODELS


class MachinePlan(Struct, frozen=True):
    """Machine type, accelerator and CPU."""

    machine: Choice[str]
    accel: Choice[str]
    cpu_model: Choice[str]
    cpu_features: tuple[Choice[str], ...]
    vcpus: Choice[int]
    topology: tuple[Parameter, ...]
    switches: tuple[Parameter, ...]


def resolve_machine(context: Context) -> MachinePlan:
    """The machine for the profile, on the host's accelerator."""
    accel = _accel(context)
    cpu = context.profile.cpu
    topology = [
        context.from_profile(key, getattr(cpu, key), "cpu", key)
        for key in ("sockets", "cores", "threads")
        if getattr(cpu, key) is not None
    ]
    return MachinePlan(
        machine=_machine_type(context),
        accel=accel,
        cpu_model=_cpu_model(context, accel.value),
        cpu_features=tuple(
            Choice(text, context.why("cpu", "features", index)) for index, text in enumerate(cpu.features)
        ),
        vcpus=Choice(cpu.count, context.why("cpu", "count")),
        topology=tuple(topology),
        switches=tuple(_switches(context)),
    )


def machine_options(plan: MachinePlan, further: tuple[Parameter, ...]) -> Iterator[Option]:
    """-machine (with ``further`` properties that other concerns add), -accel, -cpu, -smp."""
    yield Option("-machine", (Parameter("", plan.machine.value, plan.machine.reason), *plan.switches, *further))
    yield Option("-accel", (Parameter("", plan.accel.value, plan.accel.reason),))
    features = (
        Parameter(key, value, feature.reason)
        for feature in plan.cpu_features
        for key, _, value in [feature.value.partition("=")]
    )
    yield Option("-cpu", (Parameter("", plan.cpu_model.value, plan.cpu_model.reason), *features))
    yield Option("-smp", (Parameter("cpus", str(plan.vcpus.value), plan.vcpus.reason), *plan.topology))


def _machine_type(context: Context) -> Choice[str]:
    wanted = context.profile.machine
    if wanted not in context.qemu.machines:
        q35 = sorted((name for name in context.qemu.machines if name.startswith("pc-q35-")), key=_version)
        known = f"{q35[0]} to {q35[-1]}" if q35 else "no q35 machine"
        context.lack(
            f"QEMU {context.qemu.version} has no machine {wanted!r}; it has {known}",
            hint="use machine: q35, or a QEMU that still has the version",
        )
    return Choice(wanted, context.why("machine"))


def _version(machine: str) -> tuple[int, ...]:
    return tuple(int(part) for part in machine.rpartition("-")[2].split(".") if part.isdigit())


def _accel(context: Context) -> Choice[str]:
    wanted, kvm = context.profile.accel, context.host.kvm
    if context.profile.security.encrypted:
        return Choice("kvm", rule("an encrypted guest needs KVM"))
    if wanted != "auto":
        return Choice(wanted, context.why("accel"))
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
        return Choice(wanted, context.why("cpu", "model"))
    if context.profile.security.encrypted:
        model = next((name for name in EPYC_MODELS if name in known), EPYC_MODELS[-1])
        return Choice(model, rule("a model that every SEV host can run; SEV-ES measures its signature"))
    if accel == "kvm":
        return Choice("host", rule("with KVM, the host's CPU"))
    return Choice("max", rule("with TCG, all that QEMU can emulate"))


def _switches(context: Context) -> Iterator[Parameter]:
    security = context.profile.security
    if not security.has_smm:
        yield Parameter("smm", "off", rule("the registers of an SEV-ES guest can't be saved for SMM"))
    if security.splits_irqchip:
        yield Parameter("kernel-irqchip", "split", rule("SNP needs the interrupt controllers outside the kernel"))
    yield Parameter("vmport", "off", rule("the VMware port reads guest registers, which SEV-ES encrypts"))
