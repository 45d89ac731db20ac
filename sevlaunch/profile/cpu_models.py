"""CPU models that the secure processor refuses for SNP guests."""

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
