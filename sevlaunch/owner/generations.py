"""Generations of processors, as reports and certificates tell them apart."""

from __future__ import annotations

from sevlaunch.sevapi.report import Report

# Family and models of each generation: AMD 57230 section 1.4, "Determining the Product Name".
_MODELS = (
    (0x19, range(0x10), "Milan"),
    (0x19, range(0x10, 0x20), "Genoa"),
    (0x19, range(0xA0, 0xB0), "Genoa"),
    (0x1A, range(0x12), "Turin"),
    (0x1A, range(0x50, 0x58), "Venice"),
    (0x1A, range(0x90, 0xB0), "Venice"),
    (0x1A, range(0xC0, 0xC8), "Venice"),
)
GENERATIONS = frozenset(generation for _, _, generation in _MODELS)
# From Turin on the TCB has FMC before its other parts.
_WITH_FMC = ("Turin", "Venice")
# Those whose reports may be of version 2, which does not tell them apart.
_BEFORE_TURIN = ("Milan", "Genoa")
# Since Turin a processor's identity has as many bytes, and the rest of the field is zero.
SHORT_ID_BYTES = 8


def generation_of(report: Report) -> str:
    """The generation by the family and model in a report, which has them since version 3; empty: not known."""
    for family, models, generation in _MODELS:
        if report.version >= 3 and report.cpuid_family == family and report.cpuid_model in models:
            return generation
    return ""


def possible_generations(report: Report) -> tuple[str, ...]:
    """The generations that the report may be of, as far as its TCB and its identity differ: one, where it tells."""
    if known := generation_of(report):
        return (known,)
    return _BEFORE_TURIN if any(report.chip_id[SHORT_ID_BYTES:]) or not any(report.chip_id) else ("Turin",)


def has_fmc(generation: str) -> bool:
    """Whether this generation's TCB has the part FMC."""
    return generation in _WITH_FMC
