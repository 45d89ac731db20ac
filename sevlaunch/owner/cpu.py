"""CPU signatures: what a VMSA page holds of the guest's CPU model."""

from __future__ import annotations

import re

from sevsnpmeasure.vcpu_types import CPU_SIGS, cpu_sig

from sevlaunch.errors import UsageError

_VERSION = re.compile(r"-v[0-9]+$")
_STEPPINGS = range(4)
_PARTS = ("family", "model", "stepping")


def known_signatures() -> dict[str, int]:
    """The signature of each EPYC generation that QEMU has a model of, by the first model's name."""
    found: dict[int, str] = {}
    for model, signature in CPU_SIGS.items():
        found.setdefault(signature, model)
    return {model: signature for signature, model in found.items()}


def likely_signatures() -> list[int]:
    """The signatures of these generations, with each stepping that AMD has made of one, which a host's own CPU has."""
    found = list(known_signatures().values())
    return list(dict.fromkeys([*found, *(value & ~0xF | stepping for value in found for stepping in _STEPPINGS)]))


def signature_of(model: str) -> int:
    """CPUID leaf 1, EAX, of a QEMU CPU model such as EPYC-Milan-v2.

    The versions of a model in QEMU's builtin_x86_defs differ in features, never in family, model and stepping.

    :raise UsageError: when it is none whose signature is known.
    """
    known: int | None = CPU_SIGS.get(model, CPU_SIGS.get(_VERSION.sub("", model)))
    if known is None:
        raise UsageError(
            f"the signature of CPU model {model!r} is not known",
            hint="give it: --cpu-signature HEX (CPUID leaf 1, EAX, as the guest sees it); known models: "
            + ", ".join(known_signatures()),
        )
    return known


def signature(family: int, model: int, stepping: int) -> int:
    """CPUID leaf 1, EAX: AMD 25481."""
    value: int = cpu_sig(family, model, stepping)
    return value


def with_features(value: int, features: tuple[str, ...]) -> int:
    """A signature after CPU properties such as ``stepping=1``; other properties don't change it."""
    base = value >> 8 & 0xF
    parts = {
        "family": base + (value >> 20 & 0xFF if base == 0xF else 0),
        "model": value >> 4 & 0xF | value >> 12 & 0xF0,
        "stepping": value & 0xF,
    }
    for feature in features:
        key, _, text = feature.partition("=")
        if key in _PARTS and re.fullmatch("0x[0-9a-fA-F]+|[0-9]+", text):
            parts[key] = int(text, 0) if text.startswith("0x") else int(text)
    return signature(**parts)


def describe_signature(value: int) -> str:
    """A signature as number and, where it is one of those, as EPYC model."""
    for name, known in known_signatures().items():
        if known == value:
            return f"{value:#x} ({name})"
        if known & ~0xF == value & ~0xF:
            return f"{value:#x} ({name}, stepping {value & 0xF})"
    return f"{value:#x}"
