"""The kind of encryption, and what the guest owner says about it."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from sevlaunch.guest_type import GuestType, Protection
from sevlaunch.profile.fields import (
    AbsolutePath,
    DhCert,
    GuestVisibleWorkarounds,
    HostData,
    IdAuth,
    IdBlock,
    Session,
    SevPolicyValue,
    SnpPolicyValue,
    auto_or_number,
)
from sevlaunch.profile.model.base import Auto, Model
from sevlaunch.profile.policy import default_policy

Cbitpos = Annotated[int | Auto, *auto_or_number(32, 63)]
ReducedPhysBits = Annotated[int | Auto, *auto_or_number(1, 63)]


class _Security(Model, Protection, frozen=True, kw_only=True):
    @property
    def measures_boot(self) -> bool:
        """Kernel, initrd and command line of a direct boot are in the launch measurement."""
        return False

    @property
    def wants_attestation(self) -> bool:
        """Somebody is going to verify the launch."""
        return self.measures_boot

    @property
    def init2(self) -> bool | None:
        """Whether KVM_SEV_INIT2 is to start the guest, or an older ioctl; None: not said."""
        return None


class NoSecurity(_Security, frozen=True, kw_only=True):
    """An ordinary guest."""

    type: Literal["none"] = "none"

    @property
    def guest_type(self) -> GuestType:
        """None of the encrypted ones."""
        return GuestType.NONE


class _SevCommon(_Security, frozen=True, kw_only=True):
    cbitpos: Annotated[Cbitpos, Meta(description="position of the C-bit in a page table entry; auto: the host's")] = (
        "auto"
    )
    reduced_phys_bits: Annotated[
        ReducedPhysBits, Meta(description="physical address bits that the guest loses; auto: 1")
    ] = "auto"
    kernel_hashes: Annotated[bool, Meta(description="measure kernel, initrd and command line of a direct boot")] = False
    sev_device: Annotated[AbsolutePath, Meta(description="device of the secure processor")] = "/dev/sev"

    @property
    def measures_boot(self) -> bool:
        """As asked for."""
        return self.kernel_hashes


class SevSecurity(_SevCommon, frozen=True, kw_only=True):
    """A SEV or SEV-ES guest: the properties of QEMU's sev-guest object."""

    type: Literal["sev", "sev-es"]
    policy: Annotated[
        SevPolicyValue | None,
        Meta(description="guest policy; default: no-debug, no-key-sharing, domain, sev (and es for sev-es)"),
    ] = None
    dh_cert: Annotated[DhCert | None, Meta(description="the guest owner's Diffie-Hellman certificate")] = None
    session: Annotated[Session | None, Meta(description="the guest owner's launch session")] = None
    handle: (
        Annotated[int, Meta(ge=0, lt=1 << 32, description="firmware handle of a guest to share the key with")] | None
    ) = None
    legacy_vm_type: Annotated[
        bool | Auto | None,
        Meta(
            description="false: start it with KVM_SEV_INIT2 (QEMU 9.1, Linux 6.10); else with KVM_SEV_INIT or "
            "KVM_SEV_ES_INIT, as QEMU does by itself"
        ),
    ] = None

    @property
    def guest_type(self) -> GuestType:
        """SEV or SEV-ES."""
        return GuestType(self.type)

    @property
    def effective_policy(self) -> int:
        """The policy, or the default for the type."""
        return default_policy(self.guest_type) if self.policy is None else self.policy

    @property
    def wants_attestation(self) -> bool:
        """A session is the owner's own; measuring the boot has a purpose for him alone."""
        return self.session is not None or self.measures_boot

    @property
    def init2(self) -> bool | None:
        """As asked for."""
        return not self.legacy_vm_type if isinstance(self.legacy_vm_type, bool) else None

    @property
    def has_pflash(self) -> bool:
        """A SEV-ES guest of KVM_SEV_INIT2 has no read-only memory: Linux's kvm_arch_has_readonly_mem()."""
        return not (self.encrypts_registers and self.init2)


class IdKeys(Model, frozen=True, kw_only=True):
    """Private keys on P-384 that sign the ID block of each launch, in PEM or DER; nobody else may read the files."""

    key: Annotated[AbsolutePath, Meta(description="ID key, which signs the block")]
    author: Annotated[AbsolutePath | None, Meta(description="author key, which signs the ID key")] = None


class SnpSecurity(_SevCommon, frozen=True, kw_only=True):
    """A SEV-SNP guest: the properties of QEMU's sev-snp-guest object."""

    type: Literal["sev-snp"]
    policy: Annotated[SnpPolicyValue | None, Meta(description="guest policy; default: QEMU's own, 0x30000")] = None
    guest_visible_workarounds: GuestVisibleWorkarounds | None = None
    id_block: Annotated[
        IdBlock | Literal["anonymous"] | IdKeys | None,
        Meta(
            description="the only launch that the processor lets run: 96 bytes, signed by id_auth; or made of the "
            "launch's own digest, and signed by keys, or by nobody (anonymous)"
        ),
    ] = None
    id_auth: IdAuth | None = None
    host_data: HostData | None = None
    author_key_enabled: Annotated[bool, Meta(description="id_auth contains an author key")] = False
    vcek_disabled: Annotated[bool, Meta(description="the guest can't have reports signed by the VCEK")] = False

    @property
    def guest_type(self) -> GuestType:
        """SEV-SNP."""
        return GuestType.SEV_SNP

    @property
    def effective_policy(self) -> int:
        """The policy, or the default."""
        return default_policy(self.guest_type) if self.policy is None else self.policy


Security = NoSecurity | SevSecurity | SnpSecurity
