"""QEMU's CPU models for encrypted guests."""

# The first EPYC generation runs on every SEV host. All of these have the CPU signature that SEV-ES and SNP measure, so
# the launch digest does not depend on which one a QEMU knows.
EPYC_MODELS = ("EPYC-v4", "EPYC-v3", "EPYC-v2", "EPYC-v1", "EPYC")
