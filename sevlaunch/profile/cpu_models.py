"""CPU models that are special: refused by the secure processor for SNP guests, without long mode, or a local APIC."""

import re

# Models that say "complex indexing" of their L3 cache (CPUID 0x8000001D, EDX[2]), and the first ones that no longer do:
# the secure processor refuses the CPUID page of an SNP guest for that bit. QEMU's target/i386/cpu.c, epyc_cache_info
# and others; without a version, q35 takes the first.
COMPLEX_INDEXING = {
    **dict.fromkeys(("EPYC", "EPYC-v1", "EPYC-v2", "EPYC-v3", "EPYC-IBPB"), "EPYC-v4"),
    **dict.fromkeys(("EPYC-Rome", "EPYC-Rome-v1", "EPYC-Rome-v2"), "EPYC-Rome-v3"),
    **dict.fromkeys(("EPYC-Milan", "EPYC-Milan-v1"), "EPYC-Milan-v2"),
}
# The host's own cache information in place of the model's.
HOST_CACHE = "host-cache-info=on"

# Models without long mode, which OVMF and every encrypted guest run in, and those of them that have neither PAE nor
# PSE-36 and so reach 4 GiB. QEMU's target/i386/cpu.c, builtin_x86_defs.
_32_BIT = ("486", "athlon", "base", "coreduo", "kvm32", "n270", "pentium", "pentium2", "pentium3", "qemu32")
_32_BIT_ADDRESSES = ("486", "base", "pentium")
# Models without a local APIC: only to that one can a device of QEMU send messages (MSI), as PCI Express devices do.
_NO_LOCAL_APIC = ("486", "base")
_VERSION = r"-v[0-9]+$"


def is_32_bit(model: str) -> bool:
    """Whether a model of QEMU's has no long mode."""
    return re.sub(_VERSION, "", model) in _32_BIT


def reaches_4_gib(model: str) -> bool:
    """Whether a model's physical addresses have 32 bits; the other models without long mode have 36."""
    return re.sub(_VERSION, "", model) in _32_BIT_ADDRESSES


def has_local_apic(model: str) -> bool:
    """Whether a model of QEMU's has a local APIC, without one being added to its features."""
    return re.sub(_VERSION, "", model) not in _NO_LOCAL_APIC
