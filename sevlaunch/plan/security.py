"""The sev-guest and sev-snp-guest objects."""

from __future__ import annotations

import base64
from collections.abc import Iterator

from msgspec import Struct

from sevlaunch.guest_type import GuestType
from sevlaunch.plan.context import Context
from sevlaunch.plan.identity import IdentityPlan, resolve_identity
from sevlaunch.plan.needs import NeededDevice, Needs, merged
from sevlaunch.plan.option import Choice, Option, Parameter, Reason, fact, rule
from sevlaunch.plan.part import Part, PrivateFile
from sevlaunch.plan.policy import check_policy
from sevlaunch.profile.model import SevSecurity, SnpSecurity
from sevlaunch.profile.policy import describe_policy, policy_format
from sevlaunch.remedies import MODULES, NEWER_QEMU, QEMU_DEPRECATES, qemu_since

SEV_DEVICE = "/dev/sev"

# What a guest loses of its physical address space is the C-bit, on every EPYC (QEMU's qapi/misc-target.json,
# SevCapability). CPUID 0x8000001F EBX[11:6] is what the host loses, which is more.
GUEST_REDUCED_PHYS_BITS = 1


class SevProperties(Struct, frozen=True, kw_only=True):
    """What only a sev-guest has, for SEV and SEV-ES."""

    dh_cert: Choice[PrivateFile] | None
    session: Choice[PrivateFile] | None
    handle: Choice[int] | None
    legacy_vm_type: Choice[str] | None

    @property
    def files(self) -> tuple[PrivateFile, ...]:
        """The owner's certificate and session."""
        return tuple(file.value for file in (self.dh_cert, self.session) if file)

    @property
    def complete(self) -> bool:
        """Nothing is made of files that are read."""
        return True

    @property
    def needs(self) -> Needs:
        """None: the profile has the files' content."""
        return Needs()

    def parameters(self) -> Iterator[Parameter]:
        """The owner's files, the guest to share a key with, and which ioctl starts the guest."""
        for name, file in (("dh-cert-file", self.dh_cert), ("session-file", self.session)):
            if file:
                yield Parameter(name, file.value.path, file.reason)
        if self.handle:
            yield self.handle.parameter("handle")
        if self.legacy_vm_type:
            yield self.legacy_vm_type.parameter("legacy-vm-type")


class SnpProperties(Struct, frozen=True, kw_only=True):
    """What only a sev-snp-guest has. Binary values are bytes here, and base64 for QEMU.

    ``identity``: an ID block that is made of the launch's digest, by :func:`sevlaunch.flows.completion.complete_plan`:
    ``id_block`` and ``id_auth`` are not there before.
    """

    guest_visible_workarounds: Choice[bytes] | None
    id_block: Choice[bytes] | None
    id_auth: Choice[bytes] | None
    host_data: Choice[bytes] | None
    author_key_enabled: Choice[bool]
    vcek_disabled: Choice[bool]
    identity: IdentityPlan | None

    @property
    def files(self) -> tuple[PrivateFile, ...]:
        """None: all goes through the command line."""
        return ()

    @property
    def needs(self) -> Needs:
        """The keys of an ID block that is made."""
        return self.identity.needs if self.identity else Needs()

    @property
    def complete(self) -> bool:
        """Whether all is there that is made once files are read."""
        return self.identity is None or self.id_block is not None

    def parameters(self) -> Iterator[Parameter]:
        """What goes into the launch, and into the guest's reports."""
        for name, content in (
            ("guest-visible-workarounds", self.guest_visible_workarounds),
            ("id-block", self.id_block),
            ("id-auth", self.id_auth),
            ("host-data", self.host_data),
        ):
            if content:
                yield Parameter(name, base64.b64encode(content.value).decode(), content.reason)
        for name, switch in (("author-key-enabled", self.author_key_enabled), ("vcek-disabled", self.vcek_disabled)):
            if switch.value:
                yield switch.parameter(name)


class SecurityPlan(Part, frozen=True, kw_only=True):
    """The object that encrypts the guest.

    ``object_type``: QEMU's type of it. ``init2``: KVM_SEV_INIT2 starts the guest, and so decides its VMSA.
    ``emulated``: a rehearsal answers for the secure processor. ``machine_property``: of -machine, names the object.
    """

    guest_type: GuestType
    object_type: Choice[str]
    policy: Choice[int]
    cbitpos: Choice[int]
    reduced_phys_bits: Choice[int]
    own: SevProperties | SnpProperties
    kernel_hashes: Choice[bool]
    init2: bool
    sev_device: Choice[str]
    emulated: bool
    machine_property: Choice[str]

    @property
    def files(self) -> tuple[PrivateFile, ...]:
        """What the owner sent along for the launch."""
        return self.own.files

    @property
    def needs(self) -> Needs:
        """The secure processor's device, and keys."""
        if self.emulated:
            return self.own.needs
        path = self.sev_device.value
        why = "QEMU starts an encrypted guest through the secure processor."
        device = NeededDevice(path, why, MODULES[SEV_DEVICE], probed=path == SEV_DEVICE)
        return merged((self.own.needs, Needs(devices=(device,))))

    def machine_properties(self) -> Iterator[Parameter]:
        """What turns memory encryption on."""
        yield Parameter(self.machine_property.value, "sev0", self.machine_property.reason)

    def options(self) -> Iterator[Option]:
        """-object sev-guest or sev-snp-guest."""
        common = (
            self.object_type.parameter(""),
            Parameter("id", "sev0", rule("name of the object")),
            self.cbitpos.parameter("cbitpos"),
            self.reduced_phys_bits.parameter("reduced-phys-bits"),
            self.policy.parameter("policy"),
        )
        hashes = (self.kernel_hashes.parameter("kernel-hashes"),) if self.kernel_hashes.value else ()
        # QEMU opens /dev/sev by itself.
        device = (self.sev_device.parameter("sev-device"),) if self.sev_device.value != SEV_DEVICE else ()
        yield Option("-object", (*common, *self.own.parameters(), *hashes, *device))


def resolve_security(context: Context, security: SevSecurity | SnpSecurity) -> SecurityPlan:
    """The SEV object for the profile's ``security``."""
    object_type = "sev-snp-guest" if isinstance(security, SnpSecurity) else "sev-guest"
    if object_type not in context.qemu.objects:
        context.lack(
            f"QEMU {context.qemu.version} has no object {object_type}, which came with QEMU {qemu_since(object_type)}",
            hint=NEWER_QEMU,
        )
    cbitpos = _cbitpos(context, security.cbitpos)
    check_policy(context, security)
    if isinstance(security, SnpSecurity):
        own: SevProperties | SnpProperties = _snp_properties(context, security)
        init2 = True
    else:
        own = _sev_properties(context, security)
        init2 = own.legacy_vm_type is not None and own.legacy_vm_type.value == "off"
    if security.kernel_hashes:
        _need(context, object_type, "kernel-hashes", "kernel_hashes")
    # An empty file, so that QEMU has something to open: the ioctls on it are answered by the emulated processor.
    emulated = Choice(str(context.folder / "sev-device"), rule("rehearsal: the emulated secure processor"))
    return SecurityPlan(
        guest_type=security.guest_type,
        object_type=context.choice(object_type, "security", "type"),
        policy=_policy(context, security),
        cbitpos=cbitpos,
        reduced_phys_bits=_reduced_phys_bits(context, security.reduced_phys_bits),
        own=own,
        kernel_hashes=context.choice(security.kernel_hashes, "security", "kernel_hashes"),
        init2=init2,
        sev_device=emulated if context.rehearse else context.choice(security.sev_device, "security", "sev_device"),
        emulated=context.rehearse,
        machine_property=_machine_property(context),
    )


def _policy(context: Context, security: SevSecurity | SnpSecurity) -> Choice[int]:
    policy = security.effective_policy
    names = ", ".join(describe_policy(policy, policy_format(security.guest_type))) or "no bits"
    where = context.why("security", "policy", default=f"default for {security.type}")
    return Choice(policy, Reason(where.kind, f"{where.text} ({names})"))


def _cbitpos(context: Context, wanted: int | str) -> Choice[int]:
    if context.rehearse:
        return Choice(
            context.host.cpu.instruction_cbitpos,
            rule("rehearsal: QEMU compares it with this CPU's CPUID; not measured"),
        )
    if isinstance(wanted, int):
        return context.choice(wanted, "security", "cbitpos")
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
        return context.choice(wanted, "security", "reduced_phys_bits")
    return Choice(GUEST_REDUCED_PHYS_BITS, rule("a guest loses one physical address bit, the C-bit"))


def _machine_property(context: Context) -> Choice[str]:
    if context.qemu.release >= QEMU_DEPRECATES["memory-encryption"]:
        # Since QEMU 6.0.
        reason = fact(f"QEMU {context.qemu.version} deprecates memory-encryption")
        return Choice("confidential-guest-support", reason)
    return Choice("memory-encryption", rule("turns memory encryption on with the object sev0"))


def _sev_properties(context: Context, security: SevSecurity) -> SevProperties:
    return SevProperties(
        dh_cert=_owner_file(context, "dh_cert", security.dh_cert),
        session=_owner_file(context, "session", security.session),
        handle=context.choice_or_none(security.handle, "security", "handle"),
        legacy_vm_type=_legacy_vm_type(context, security),
    )


def _owner_file(context: Context, key: str, content: bytes | None) -> Choice[PrivateFile] | None:
    if content is None:
        return None
    file = PrivateFile(str(context.folder / f"{key}.b64"), base64.b64encode(content).decode())
    return context.choice(file, "security", key)


def _legacy_vm_type(context: Context, security: SevSecurity) -> Choice[str] | None:
    """What legacy-vm-type gets.

    QEMU's own ``auto`` is ``on`` until a property of sev-guest needs KVM_SEV_INIT2, and up to QEMU 11.1 none does:
    sev_init2_required() in target/i386/sev.c.
    """
    wanted, known = security.legacy_vm_type, _has(context, "legacy-vm-type")
    if wanted is False and not known:
        context.lack(
            f"QEMU {context.qemu.version} has no KVM_SEV_INIT2, which legacy_vm_type: false asks for; it came "
            f"with QEMU {qemu_since('legacy-vm-type')}",
            hint="install a newer QEMU, or leave legacy_vm_type out",
        )
        return None
    if wanted is not None:
        _need(context, "sev-guest", "legacy-vm-type", "legacy_vm_type")
        text = wanted if wanted == "auto" else "on" if wanted else "off"
        return context.choice(text, "security", "legacy_vm_type")
    if security.encrypts_registers and known:
        return Choice("on", rule("what QEMU does by itself, said so that the evidence tells which VMSA was measured"))
    return None


def _snp_properties(context: Context, security: SnpSecurity) -> SnpProperties:
    identity = resolve_identity(context, security)
    named = security.id_block if isinstance(security.id_block, bytes) else None
    author = context.choice(security.author_key_enabled, "security", "author_key_enabled")
    if identity and identity.author:
        author = context.choice(True, "security", "id_block", "author")
    return SnpProperties(
        guest_visible_workarounds=context.choice_or_none(
            security.guest_visible_workarounds, "security", "guest_visible_workarounds"
        ),
        id_block=context.choice_or_none(named, "security", "id_block"),
        id_auth=context.choice_or_none(security.id_auth, "security", "id_auth"),
        host_data=context.choice_or_none(security.host_data, "security", "host_data"),
        author_key_enabled=author,
        vcek_disabled=context.choice(security.vcek_disabled, "security", "vcek_disabled"),
        identity=identity,
    )


def _has(context: Context, property_name: str) -> bool:
    return property_name in context.qemu.objects.get("sev-guest", [])


def _need(context: Context, object_type: str, property_name: str, key: str) -> None:
    known = context.qemu.objects.get(object_type)
    if known is not None and property_name not in known:
        context.lack(
            f"QEMU {context.qemu.version} has no {object_type} property {property_name}, which security.{key} needs; "
            f"it came with QEMU {qemu_since(property_name)}",
            hint=NEWER_QEMU,
        )
