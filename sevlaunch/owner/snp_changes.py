"""What goes wrong in practice in SNP launches: the VMSA that another hypervisor or kernel makes, and types of pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations

from msgspec.structs import replace

from sevlaunch.owner.change import Change, LaunchChange, Said
from sevlaunch.owner.digest import Launch
from sevlaunch.sevapi.ovmf import SectionKind
from sevlaunch.sevapi.snp import PageType

# SEV_FEATURES of the VMSA, AMD 24593 table B-4: what a hypervisor may turn on beside SNPActive (bit 0), namely
# RestrictedInjection, AlternateInjection, DebugSwap, PreventHostIBS, SecureTSC, VMSARegProt, SmtProtection, SecureAVIC.
_ACTIVE = 0x1
_BITS = (3, 4, 5, 6, 9, 14, 15, 16)


# Those that guests of today have: none, DebugSwap, SecureTSC, both; SecureAVIC.
COMMON_FEATURES = (0x0, 0x1, 0x21, 0x201, 0x221, 0x10001)


def _features() -> Iterator[int]:
    for number in range(4):
        for bits in combinations(_BITS, number):
            value = sum(1 << bit for bit in bits)
            yield _ACTIVE | value
            if number < 2:
                yield value


SNP_FEATURES = tuple(dict.fromkeys((*COMMON_FEATURES, *_features())))

_VMMS = {"QEMU": "QEMU", "ec2": "that of Amazon EC2", "gce": "that of Google Compute Engine"}
_ZERO_FPU = "those of a KVM before Linux 6.10, with zeros in MXCSR and the x87 control word"

# What a section of the firmware's metadata may have been filled with, beside what QEMU does.
_PAGES: dict[SectionKind, tuple[str, tuple[PageType | None, ...]]] = {
    SectionKind.CPUID: ("the CPUID page", (PageType.ZERO, PageType.UNMEASURED, PageType.NORMAL, None)),
    SectionKind.SNP_SECRETS: ("the secrets page", (PageType.ZERO, PageType.UNMEASURED, PageType.NORMAL, None)),
    SectionKind.SNP_KERNEL_HASHES: ("the page for kernel hashes", (PageType.UNMEASURED, PageType.NORMAL, None)),
    SectionKind.SNP_SEC_MEM: ("the pages of SEC's memory", (PageType.UNMEASURED, PageType.NORMAL, None)),
    SectionKind.SVSM_CAA: ("the page for an SVSM's calls", (PageType.UNMEASURED, PageType.NORMAL, None)),
}
_FILLED = {
    PageType.ZERO: "of the type ZERO",
    PageType.UNMEASURED: "of the type UNMEASURED",
    PageType.NORMAL: "of the type NORMAL, with zeros",
    None: "left out",
}


def snp_changes(said: Said, launch: Launch) -> Iterator[LaunchChange]:
    """The changes that SNP launches alone have: whose VMSA it is, and the types of the metadata's pages."""
    expected = _VMMS[launch.vmm]
    if launch.vmm == "QEMU":
        yield said.change("the VMSA pages", _ZERO_FPU, "those of a newer one", "vmsa", {"zero_fpu": True})
    for vmm, name in _VMMS.items():
        if vmm != launch.vmm:
            yield said.change("the hypervisor", name, expected, "vmm", {"vmm": vmm})
    there = {section.kind for section in launch.firmware.sections}
    for kind, (subject, types) in _PAGES.items():
        for page_type in types if kind in there else ():
            change = Change(subject, _FILLED[page_type], f"what {expected} adds", said.source("pages"))
            yield LaunchChange(change, _with_page(kind, page_type), alone=True)


def _with_page(kind: SectionKind, page_type: PageType | None) -> Callable[[Launch], Launch]:
    return lambda launch: replace(launch, odd_pages=(*launch.odd_pages, (kind, page_type)))
