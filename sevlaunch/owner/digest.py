"""The launch digest that a launch must give: LD of AMD 55766 (SEV, SEV-ES) and of AMD 56860 (SNP)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Literal, Protocol

from msgspec import Struct
from sevsnpmeasure.gctx import GCTX

from sevlaunch.errors import UsageError
from sevlaunch.guest_type import GuestType
from sevlaunch.owner.firmware import Firmware
from sevlaunch.sevapi.kernel_hashes import KernelHashes
from sevlaunch.sevapi.ovmf import Section, SectionKind
from sevlaunch.sevapi.snp import VMSA_GPA, PageType, extend_by
from sevlaunch.sevapi.vmsa import vmsa_pages

Vmm = Literal["QEMU", "ec2", "gce"]

# SEV_FEATURES (AMD 24593 table B-4) that QEMU and KVM set: an SNP guest has SNPActive alone, a SEV-ES guest none.
DEFAULT_GUEST_FEATURES = {GuestType.SEV: 0, GuestType.SEV_ES: 0, GuestType.SEV_SNP: 0x1}

_PAGE_OFFSET = 0xFFF


class Launch(Struct, frozen=True):
    """All that a launch digest depends on.

    ``kernel``: the hashes of a direct boot; None: not measured. ``cpu_signature``: CPUID leaf 1, EAX, of the guest's
    CPU model. ``init2``: KVM_SEV_INIT2 started the SEV-ES guest. ``guest_features``: SEV_FEATURES of the VMSA.
    ``vmm``: who runs an SNP guest. ``zero_fpu``: its VMSA pages have zeros in MXCSR and the x87 control word.
    ``odd_pages``: kinds of sections that are filled with another type of page than QEMU takes; None: with none. What a
    type does not measure is ignored.
    """

    guest_type: GuestType
    firmware: Firmware
    kernel: KernelHashes | None = None
    vcpus: int = 1
    cpu_signature: int = 0
    init2: bool = False
    guest_features: int = 0
    vmm: Vmm = "QEMU"
    zero_fpu: bool = False
    odd_pages: tuple[tuple[SectionKind, PageType | None], ...] = ()


def launch_digest(launch: Launch) -> bytes:
    """The digest: 32 bytes, for SNP 48.

    :raise UsageError: when the firmware lacks what the launch needs.
    """
    return Digests().of(launch)


class Digests:
    """Digests of many launches; what two of them share is hashed once."""

    def __init__(self) -> None:
        self._starts: dict[tuple[object, ...], _Chain] = {}
        self._by_vcpus: dict[tuple[object, ...], _ByVcpus] = {}

    def of(self, launch: Launch) -> bytes:
        """As :func:`launch_digest`."""
        if launch.guest_type is GuestType.SEV and launch.kernel is None:
            # Nothing follows the firmware: its hash alone is as good as the image.
            return launch.firmware.sha256
        snp = launch.guest_type is GuestType.SEV_SNP
        beginning = (snp, launch.firmware, launch.kernel, launch.vmm, launch.odd_pages)
        if beginning not in self._starts:
            self._starts[beginning] = _snp_start(launch) if snp else _sev_start(launch)
        start = self._starts[beginning]
        if not launch.guest_type.encrypts_registers:
            return start.digest()
        init2 = _has_fpu(launch)
        key = (*beginning, launch.guest_type, launch.cpu_signature, init2, launch.guest_features)
        if key not in self._by_vcpus:
            self._by_vcpus[key] = _ByVcpus(start, launch, init2=init2)
        return self._by_vcpus[key].of(launch.vcpus)


def launch_vmsas(launch: Launch) -> tuple[bytes, ...]:
    """The VMSA page of each vCPU, 4096 bytes, as the launch measures them; empty for SEV, which has none.

    :raise UsageError: when the firmware does not say where the other vCPUs start.
    """
    if not launch.guest_type.encrypts_registers:
        return ()
    return tuple(_pages(launch, launch.vcpus, init2=_has_fpu(launch)))


def _has_fpu(launch: Launch) -> bool:
    """Whether the pages have the reset values of MXCSR and the x87 control word."""
    return launch.init2 if launch.guest_type.has_vmsa_generations else not launch.zero_fpu


def _pages(launch: Launch, count: int, *, init2: bool) -> Iterator[bytes]:
    if not launch.firmware.reset_eip:
        raise UsageError(
            f"the firmware does not say where the other vCPUs start, which {launch.guest_type} needs",
            hint="use an OVMF image that supports SEV-ES",
        )
    return vmsa_pages(
        count,
        ap_eip=launch.firmware.reset_eip,
        cpu_signature=launch.cpu_signature,
        init2=init2,
        sev_features=launch.guest_features,
        vmm=launch.vmm,
    )


class _Chain(Protocol):
    """A digest that further pages extend."""

    def then(self, content: bytes, /) -> _Chain: ...

    def digest(self) -> bytes: ...


class _ByVcpus:
    """The digests for 1, 2, 3... vCPUs: each extends the one before."""

    def __init__(self, start: _Chain, launch: Launch, *, init2: bool) -> None:
        self._first, self._other = _pages(launch, 2, init2=init2)
        self._last = start
        self._digests = [start.digest()]

    def of(self, vcpus: int) -> bytes:
        while len(self._digests) <= vcpus:
            self._last = self._last.then(self._first if len(self._digests) == 1 else self._other)
            self._digests.append(self._last.digest())
        return self._digests[vcpus]


def _sev_start(launch: Launch) -> _Chain:
    """What SEV and SEV-ES measure before the VMSA pages."""
    measured = launch.firmware.measured
    if launch.kernel is None:
        return measured
    _check_hashes_area(launch.firmware)
    return measured.then(launch.kernel.table())


def _check_hashes_area(firmware: Firmware) -> None:
    if not firmware.hashes_gpa:
        raise UsageError(
            f"{firmware.name} has no place for kernel hashes: QEMU refuses to start with it",
            hint="use an image built for measured direct boot (OVMF.amdsev.fd), or turn kernel_hashes off",
        )


class _SnpChain(Struct, frozen=True):
    """An SNP launch digest, 48 bytes, that VMSA pages extend."""

    content: bytes

    def then(self, content: bytes) -> _SnpChain:
        return _SnpChain(extend_by(self.content, PageType.VMSA, VMSA_GPA, _contents(content)))

    def digest(self) -> bytes:
        return self.content


@lru_cache(maxsize=16)
def _contents(page: bytes) -> bytes:
    # All vCPUs but the first have the same page.
    return hashlib.sha384(page).digest()


def _snp_start(launch: Launch) -> _Chain:
    """What SNP measures before the VMSA pages: the image, then the sections of its metadata."""
    firmware = launch.firmware
    context = GCTX(seed=firmware.after_snp_pages)
    if not firmware.sections:
        raise UsageError(
            f"{firmware.name} has no metadata for SNP", hint="use an OVMF image built for SNP (OVMF.amdsev.fd)"
        )
    if launch.kernel is not None:
        _check_hashes_area(firmware)
        if all(section.kind is not SectionKind.SNP_KERNEL_HASHES for section in firmware.sections):
            raise UsageError(
                f"the metadata of {firmware.name} has no page for kernel hashes",
                hint="use an image built for measured direct boot (OVMF.amdsev.fd), or turn kernel_hashes off",
            )
    sections = list(firmware.sections)
    if launch.vmm == "ec2":
        # EC2 adds the CPUID page when all others are there.
        sections.sort(key=lambda section: section.kind is SectionKind.CPUID)
    odd: Mapping[SectionKind, PageType | None] = dict(launch.odd_pages)
    for section in sections:
        if section.kind in odd:
            _add_odd(context, section, odd[section.kind])
        else:
            _add_section(context, section, launch)
    return _SnpChain(context.ld())


def _add_odd(context: GCTX, section: Section, page_type: PageType | None) -> None:
    match page_type:
        case PageType.ZERO:
            context.update_zero_pages(section.gpa, section.size)
        case PageType.UNMEASURED:
            context.update_unmeasured_pages(section.gpa, section.size)
        case PageType.NORMAL:
            context.update_normal_pages(section.gpa, bytes(section.size))
        case PageType.SECRETS:
            context.update_secrets_page(section.gpa)
        case PageType.CPUID:
            context.update_cpuid_page(section.gpa)


def _add_section(context: GCTX, section: Section, launch: Launch) -> None:
    match section.kind:
        case SectionKind.SNP_SECRETS:
            context.update_secrets_page(section.gpa)
        case SectionKind.CPUID:
            context.update_cpuid_page(section.gpa)
        case SectionKind.SNP_SEC_MEM if launch.vmm == "gce":
            context.update_unmeasured_pages(section.gpa, section.size)
        case SectionKind.SNP_KERNEL_HASHES if launch.kernel is not None:
            try:
                page = launch.kernel.page(launch.firmware.hashes_gpa & _PAGE_OFFSET)
            except ValueError as error:
                raise UsageError(f"the firmware image is damaged: {error}", hint="is it another file?") from error
            context.update_normal_pages(section.gpa, page)
        case _:
            context.update_zero_pages(section.gpa, section.size)
