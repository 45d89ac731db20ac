"""The types of guests, and what follows from each: asked of a type itself, or of a profile's security."""

from __future__ import annotations

from enum import StrEnum

# QEMU's CPU models for encrypted guests. The first EPYC generation runs on every SEV host. All of these have the CPU
# signature that SEV-ES and SNP measure, so the launch digest does not depend on which one a QEMU knows.
EPYC_MODELS = ("EPYC-v4", "EPYC-v3", "EPYC-v2", "EPYC-v1", "EPYC")


class Protection:
    """What a guest's type means for all that is built around it. AMD 24593 (APM volume 2), sections 15.34 to 15.36."""

    __slots__ = ()

    @property
    def guest_type(self) -> GuestType:
        """The type."""
        raise NotImplementedError

    @property
    def encrypted(self) -> bool:
        """Its memory is encrypted: KVM and the secure processor are needed, and devices see only what it shares."""
        return self.guest_type is not GuestType.NONE

    @property
    def encrypts_registers(self) -> bool:
        """Its registers are encrypted, and its VMSA pages are measured: the launch digest depends on its CPUs."""
        return self.guest_type in (GuestType.SEV_ES, GuestType.SEV_SNP)

    @property
    def has_vmsa_generations(self) -> bool:
        """Its VMSA pages depend on the ioctl that made it: KVM_SEV_ES_INIT, or KVM_SEV_INIT2."""
        return self.guest_type is GuestType.SEV_ES

    @property
    def has_smm(self) -> bool:
        """It can have SMM, for which the host saves and loads registers."""
        return not self.encrypts_registers

    @property
    def resets_in_place(self) -> bool:
        """QEMU can reset it: nobody but the guest can load encrypted registers anew."""
        return not self.encrypts_registers

    @property
    def has_pflash(self) -> bool:
        """Its firmware can be on pflash, which needs read-only memory: SNP's private memory has none."""
        return self.guest_type is not GuestType.SEV_SNP

    @property
    def locks_memory(self) -> bool:
        """Its memory must stay where it is: encrypted with its address, it is of no use at another place."""
        return self.guest_type in (GuestType.SEV, GuestType.SEV_ES)

    @property
    def splits_irqchip(self) -> bool:
        """It needs the interrupt controllers outside the kernel."""
        return self.guest_type is GuestType.SEV_SNP

    @property
    def measured_by_host(self) -> bool:
        """The host asks for the launch measurement and hands it on; a SNP guest asks for a report itself."""
        return self.guest_type in (GuestType.SEV, GuestType.SEV_ES)

    @property
    def takes_secret(self) -> bool:
        """The owner's secret is injected by the host, between launch and run."""
        return self.measured_by_host


class GuestType(Protection, StrEnum):
    """none: an ordinary guest; the others are encrypted."""

    NONE = "none"
    SEV = "sev"
    SEV_ES = "sev-es"
    SEV_SNP = "sev-snp"

    @property
    def guest_type(self) -> GuestType:
        """Itself."""
        return self
