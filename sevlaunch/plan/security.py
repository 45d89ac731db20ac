"""The sev-guest and sev-snp-guest objects."""

from __future__ import annotations

import base64
from collections.abc import Iterator

from msgspec import Struct

from sevlaunch.guest_type import GuestType
from sevlaunch.plan.context import Context
from sevlaunch.plan.firmware import FirmwarePlan
from sevlaunch.plan.option import Choice, Option, Parameter, Reason, fact, rule
from sevlaunch.profile.model import SevSecurity, SnpSecurity
from sevlaunch.profile.policy import describe_policy, policy_format

# memory-encryption is silent in 10.0.2 and warns in 11.1.3; confidential-guest-support is there since 6.0.
MEMORY_ENCRYPTION_DEPRECATED = (10, 1)

# What a guest loses of its physical address space is the C-bit, on every EPYC (QEMU's qapi/misc-target.json,
# SevCapability). CPUID 0x8000001F EBX[11:6] is what the host loses, which is more.
GUEST_REDUCED_PHYS_BITS = 1

# Property -> the QEMU that brought it (git log of target/i386/sev.c).
SINCE = {"kernel-hashes": "6.2", "legacy-vm-type": "9.1", "sev-snp-guest": "9.1"}


class OwnerFile(Struct, frozen=True):
    """A file that QEMU reads as base64 text, written into the guest's folder before the start."""

    path: str
    content: bytes

    @property
    def text(self) -> str:
        """The content as QEMU wants it."""
        return base64.b64encode(self.content).decode()


class SecurityPlan(Struct, frozen=True):
    """``init2``: KVM_SEV_INIT2 starts the guest, and so decides its VMSA."""

    guest_type: GuestType
    policy: Choice[int]
    cbitpos: Choice[int]
    reduced_phys_bits: Choice[int]
    kernel_hashes: bool
    init2: bool
    sev_device: str
    properties: tuple[Parameter, ...]
    machine_parameter: Parameter
    files: tuple[OwnerFile, ...]


def resolve_security(context: Context, firmware: FirmwarePlan | None) -> SecurityPlan | None:
    """The SEV object for the profile; None for an ordinary guest."""
    security = context.profile.security
    if not isinstance(security, (SevSecurity, SnpSecurity)):
        return None
    qom_type = "sev-snp-guest" if isinstance(security, SnpSecurity) else "sev-guest"
    if qom_type not in context.qemu.objects:
        since = f", which came with QEMU {SINCE[qom_type]}" if qom_type in SINCE else ""
        context.lack(
            f"QEMU {context.qemu.version} has no object {qom_type}{since}",
            hint="install a newer QEMU, or set qemu.binary",
        )
    cbitpos = _cbitpos(context, security.cbitpos)
    reduced_phys_bits = _reduced_phys_bits(context, security.reduced_phys_bits)
    names = ", ".join(describe_policy(security.effective_policy, policy_format(security.guest_type))) or "no bits"
    where = context.why("security", "policy", default=f"default for {security.type}")
    policy = Choice(security.effective_policy, Reason(where.kind, f"{where.text} ({names})"))
    properties = [
        Parameter("", qom_type, context.why("security", "type")),
        Parameter("id", "sev0", rule("name of the object")),
        Parameter("cbitpos", str(cbitpos.value), cbitpos.reason),
        Parameter("reduced-phys-bits", str(reduced_phys_bits.value), reduced_phys_bits.reason),
        Parameter("policy", str(policy.value), policy.reason),
    ]
    files: list[OwnerFile] = []
    if isinstance(security, SnpSecurity):
        properties += _snp_properties(context, security)
        init2 = True
    else:
        legacy = list(_legacy_vm_type(context, security, firmware))
        # An emulated kernel has KVM_SEV_INIT2 only where the profile insists on it.
        offered = bool(security.init2) if context.rehearse else _has(context, "legacy-vm-type")
        init2 = offered and all(parameter.value != "on" for parameter in legacy)
        properties += [*_sev_properties(context, security, files), *legacy]
    if security.kernel_hashes:
        _need(context, qom_type, "kernel-hashes", "kernel_hashes")
        properties.append(context.from_profile("kernel-hashes", True, "security", "kernel_hashes"))
    sev_device = security.sev_device
    if context.rehearse:
        # An empty file, so that QEMU has something to open: the ioctls on it are answered by the emulated processor.
        sev_device = str(context.folder / "sev-device")
        properties.append(Parameter("sev-device", sev_device, rule("rehearsal: the emulated secure processor")))
    elif sev_device != "/dev/sev":
        properties.append(context.from_profile("sev-device", security.sev_device, "security", "sev_device"))
    return SecurityPlan(
        guest_type=security.guest_type,
        policy=policy,
        cbitpos=cbitpos,
        reduced_phys_bits=reduced_phys_bits,
        kernel_hashes=security.kernel_hashes,
        init2=init2,
        sev_device=sev_device,
        properties=tuple(properties),
        machine_parameter=_machine_parameter(context),
        files=tuple(files),
    )


def security_options(plan: SecurityPlan) -> Iterator[Option]:
    """-object sev-guest or sev-snp-guest."""
    yield Option("-object", plan.properties)


def _cbitpos(context: Context, wanted: int | str) -> Choice[int]:
    if context.rehearse:
        return Choice(
            context.host.cpu.instruction_cbitpos,
            rule("rehearsal: QEMU compares it with this CPU's CPUID; not measured"),
        )
    if isinstance(wanted, int):
        return Choice(wanted, context.why("security", "cbitpos"))
    leaf = context.host.cpu.encryption
    if leaf is None:
        context.lack(
            "security.cbitpos is auto, and this host's CPU does not tell it (no CPUID leaf 0x8000001F)",
            hint="run on an EPYC host, render for one with --host FILE, or set security.cbitpos",
        )
        return Choice(0, rule("unknown"))
    return Choice(leaf.cbitpos, fact(f"CPUID 0x8000001F EBX[5:0] = {leaf.cbitpos}"))


def _reduced_phys_bits(context: Context, wanted: int | str) -> Choice[int]:
    if isinstance(wanted, int):
        return Choice(wanted, context.why("security", "reduced_phys_bits"))
    return Choice(GUEST_REDUCED_PHYS_BITS, rule("a guest loses one physical address bit, the C-bit"))


def _machine_parameter(context: Context) -> Parameter:
    if context.qemu.release >= MEMORY_ENCRYPTION_DEPRECATED:
        return Parameter(
            "confidential-guest-support", "sev0", fact(f"QEMU {context.qemu.version} deprecates memory-encryption")
        )
    return Parameter("memory-encryption", "sev0", rule("turns memory encryption on with the object sev0"))


def _sev_properties(context: Context, security: SevSecurity, files: list[OwnerFile]) -> Iterator[Parameter]:
    for key, property_name, content in (
        ("dh_cert", "dh-cert-file", security.dh_cert),
        ("session", "session-file", security.session),
    ):
        if content is not None:
            file = OwnerFile(str(context.folder / f"{key}.b64"), content)
            files.append(file)
            yield context.from_profile(property_name, file.path, "security", key)
    if security.handle is not None:
        yield context.from_profile("handle", security.handle, "security", "handle")


def _legacy_vm_type(context: Context, security: SevSecurity, firmware: FirmwarePlan | None) -> Iterator[Parameter]:
    wanted = security.legacy_vm_type
    if wanted is not None:
        if wanted is not False or _has(context, "legacy-vm-type"):
            _need(context, "sev-guest", "legacy-vm-type", "legacy_vm_type")
            text = wanted if wanted == "auto" else "on" if wanted else "off"
            yield context.from_profile("legacy-vm-type", text, "security", "legacy_vm_type")
        elif not _has(context, "legacy-vm-type"):
            context.lack(
                f"QEMU {context.qemu.version} has no KVM_SEV_INIT2, which legacy_vm_type: false asks for; it came "
                f"with QEMU {SINCE['legacy-vm-type']}",
                hint="install a newer QEMU, or leave legacy_vm_type out",
            )
    elif security.encrypts_registers and firmware and firmware.kind == "pflash" and _has(context, "legacy-vm-type"):
        yield Parameter(
            "legacy-vm-type", "on", rule("SEV-ES on pflash needs read-only memory, which KVM_SEV_INIT2 does not have")
        )


def _snp_properties(context: Context, security: SnpSecurity) -> Iterator[Parameter]:
    for key in ("guest_visible_workarounds", "id_block", "id_auth", "host_data"):
        content = getattr(security, key)
        if content is not None:
            yield context.from_profile(key.replace("_", "-"), base64.b64encode(content).decode(), "security", key)
    for key in ("author_key_enabled", "vcek_disabled"):
        if getattr(security, key):
            yield context.from_profile(key.replace("_", "-"), True, "security", key)


def _has(context: Context, property_name: str) -> bool:
    return property_name in context.qemu.objects.get("sev-guest", [])


def _need(context: Context, qom_type: str, property_name: str, key: str) -> None:
    known = context.qemu.objects.get(qom_type)
    if known is not None and property_name not in known:
        context.lack(
            f"QEMU {context.qemu.version} has no {qom_type} property {property_name}, which security.{key} needs; "
            f"it came with QEMU {SINCE[property_name]}",
            hint="install a newer QEMU, or set qemu.binary",
        )
