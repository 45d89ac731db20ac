"""Reports as go-sev-guest writes them: its message Attestation (proto/sevsnp.proto) in Protocol Buffers' wire format.

A message has the fields of a report, and not its bytes: what AMD reserves is zero in it.
"""

from __future__ import annotations

from typing import TypeVar

from sevlaunch.owner.collected import ReportFile
from sevlaunch.owner.x509_files import parse_der
from sevlaunch.sevapi.ecdsa import SIGNATURE_BYTES
from sevlaunch.sevapi.protobuf import parse_message
from sevlaunch.sevapi.report import Report

# Attestation.
_REPORT, _CHAIN = 1, 2
# Report: numbers with their bits, and bytes with how many there are.
_NUMBERS = {
    "version": (1, 32),
    "guest_svn": (2, 32),
    "policy": (3, 64),
    "vmpl": (6, 32),
    "signature_algo": (7, 32),
    "platform_info": (9, 64),
    "key_info": (10, 32),
    "current_build": (21, 8),
    "current_minor": (22, 8),
    "current_major": (23, 8),
    "committed_build": (24, 8),
    "committed_minor": (25, 8),
    "committed_major": (26, 8),
    "launch_mit_vector": (30, 64),
    "current_mit_vector": (31, 64),
}
_TCBS = {"current_tcb": 8, "reported_tcb": 18, "committed_tcb": 20, "launch_tcb": 27}
_BYTES = {
    "family_id": (4, 16),
    "image_id": (5, 16),
    "report_data": (11, 64),
    "measurement": (12, 48),
    "host_data": (13, 32),
    "id_key_digest": (14, 48),
    "author_key_digest": (15, 48),
    "report_id": (16, 32),
    "report_id_ma": (17, 32),
    "chip_id": (19, 64),
}
_SIGNATURE, _CPUID = 28, 29
_KNOWN = {
    *(number for number, _ in (*_NUMBERS.values(), *_BYTES.values())),
    *_TCBS.values(),
    *(_SIGNATURE, _CPUID),
}
# CertificateChain: VCEK, ASK, ARK, VLEK.
_CERTIFICATES = {1: "VCEK", 2: "ASK", 3: "ARK", 6: "VLEK"}

Value = TypeVar("Value", int, bytes)


def is_attestation(content: bytes) -> bool:
    """Whether ``content`` begins as an Attestation does, with the tag of its report."""
    return content[:1] == bytes([_REPORT << 3 | 2])


def parse_attestation(content: bytes) -> ReportFile:
    """The report and the certificates of an Attestation.

    :raise ValueError: when it is none.
    """
    message = parse_message(content)
    fields = parse_message(_one(message, _REPORT, b""))
    if unknown := sorted(set(fields) - _KNOWN):
        raise ValueError(f"the report has the fields {unknown}, which are not known here")
    numbers = {name: _number(fields, *place) for name, place in _NUMBERS.items()}
    tcbs = {name: _number(fields, field, 64).to_bytes(8, "little") for name, field in _TCBS.items()}
    octets = {name: _sized(fields, *place) for name, place in _BYTES.items()}
    family, model, stepping = _cpuid(_number(fields, _CPUID, 32))
    values = {**numbers, **tcbs, **octets}
    report = Report(
        **values,  # type: ignore[arg-type]
        cpuid_family=family,
        cpuid_model=model,
        cpuid_stepping=stepping,
    )
    certificates, skipped = [], []
    for field, name in _CERTIFICATES.items():
        chain = parse_message(_one(message, _CHAIN, b""))
        if one := _one(chain, field, b""):
            try:
                certificates.append(parse_der(one))
            except ValueError as error:
                skipped.append(f"{name}: {error}")
    signature = _sized(fields, _SIGNATURE, SIGNATURE_BYTES)
    return ReportFile(report.with_signature(signature), tuple(certificates), skipped=tuple(skipped))


def _one(message: dict[int, list[int | bytes]], field: int, default: Value) -> Value:
    """The field's value, or ``default``, which is what a field means that is left out."""
    values = message.get(field, [default])
    if len(values) > 1 or not isinstance(values[0], type(default)):
        raise ValueError(f"field {field} is there more than once, or of another type")
    return values[0]


def _number(fields: dict[int, list[int | bytes]], field: int, bits: int) -> int:
    value = _one(fields, field, 0)
    if value >> bits:
        raise ValueError(f"field {field} of the report is {value:#x}: wanted {bits} bits")
    return value


def _sized(fields: dict[int, list[int | bytes]], field: int, size: int) -> bytes:
    value = _one(fields, field, b"")
    if len(value) != size:
        raise ValueError(f"field {field} of the report has {len(value)} bytes: wanted {size}")
    return value


def _cpuid(eax: int) -> tuple[int, int, int]:
    """Family, model and stepping in CPUID leaf 1, EAX: AMD 25481."""
    family, model = eax >> 8 & 0xF, eax >> 4 & 0xF
    # Without an extended family, a report's family is the base one.
    return family + (eax >> 20 & 0xFF), model | eax >> 12 & 0xF0, eax & 0xF
