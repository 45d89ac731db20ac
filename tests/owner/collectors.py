"""What collectors make of a report, written by other code than that which reads it."""

from __future__ import annotations

import json
from typing import Any

from cryptography import x509

from sevlaunch.sevapi.certificate_table import KNOWN, make_table
from tests.owner.pki import der


def _le(content: bytes) -> int:
    return int.from_bytes(content, "little")


def host_table(*named: tuple[str, x509.Certificate]) -> bytes:
    """The table that a host gives with a report."""
    guids = {name: guid for guid, name in KNOWN.items()}
    return make_table({guids[name]: der(one) for name, one in named})


def varint(number: int) -> bytes:
    """A number in Protocol Buffers' wire format."""
    content = b""
    while number >= 0x80:
        content += bytes([number & 0x7F | 0x80])
        number >>= 7
    return content + bytes([number])


def field(number: int, value: int | bytes) -> bytes:
    """A field of a message; nothing for what proto3 leaves out."""
    if not value:
        return b""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def message(fields: dict[int, int | bytes]) -> bytes:
    """A message, its fields by their numbers as protobuf's own library orders them."""
    return b"".join(field(number, value) for number, value in sorted(fields.items()))


def go_report(report: bytes) -> dict[int, int | bytes]:
    """The fields of go-sev-guest's message Report, by where AMD 56860 has them in a report."""
    numbers = {1: (0, 4), 2: (4, 8), 3: (8, 16), 6: (0x30, 0x34), 7: (0x34, 0x38), 8: (0x38, 0x40), 9: (0x40, 0x48)}
    numbers |= {10: (0x48, 0x4C), 18: (0x180, 0x188), 20: (0x1E0, 0x1E8), 27: (0x1F0, 0x1F8)}
    numbers |= {21: (0x1E8, 0x1E9), 22: (0x1E9, 0x1EA), 23: (0x1EA, 0x1EB)}
    numbers |= {24: (0x1EC, 0x1ED), 25: (0x1ED, 0x1EE), 26: (0x1EE, 0x1EF)}
    numbers |= {30: (0x1F8, 0x200), 31: (0x200, 0x208)}
    parts = {4: (0x10, 0x20), 5: (0x20, 0x30), 11: (0x50, 0x90), 12: (0x90, 0xC0), 13: (0xC0, 0xE0)}
    parts |= {14: (0xE0, 0x110), 15: (0x110, 0x140), 16: (0x140, 0x160), 17: (0x160, 0x180), 19: (0x1A0, 0x1E0)}
    parts |= {28: (0x2A0, 0x4A0)}
    family, model, stepping = report[0x188:0x18B]
    eax = family - 0xF << 20 | model >> 4 << 16 | 0xF << 8 | (model & 0xF) << 4 | stepping if family else 0
    return {
        **{number: _le(report[start:end]) for number, (start, end) in numbers.items()},
        **{number: report[start:end] for number, (start, end) in parts.items()},
        29: eax,
    }


def go_attestation(report: bytes, certificates: dict[int, bytes], product: int = 0) -> bytes:
    """go-sev-guest's message Attestation: report, certificate chain, product."""
    fields: dict[int, int | bytes] = {1: message(go_report(report)), 2: message({**certificates})}
    if product:
        fields[3] = message({1: product})
    return message(fields)


def trustee_report(report: bytes) -> dict[str, Any]:
    """The report as virtee's sev crate writes it in JSON."""
    turin = report[0x188] == 0x1A

    def octets(start: int, end: int) -> list[int]:
        return list(report[start:end])

    def tcb(start: int) -> dict[str, int | None]:
        parts = report[start : start + 8]
        names = ("fmc", "bootloader", "tee", "snp") if turin else ("bootloader", "tee")
        found: dict[str, int | None] = {"fmc": None, **dict(zip(names, parts, strict=False))}
        if not turin:
            found["snp"] = parts[6]
        return {**found, "microcode": parts[7]}

    def version(start: int) -> dict[str, int]:
        return dict(zip(("build", "minor", "major"), report[start : start + 3], strict=True))

    return {
        "version": _le(report[:4]),
        "guest_svn": _le(report[4:8]),
        "policy": _le(report[8:16]),
        "family_id": octets(0x10, 0x20),
        "image_id": octets(0x20, 0x30),
        "vmpl": _le(report[0x30:0x34]),
        "sig_algo": _le(report[0x34:0x38]),
        "current_tcb": tcb(0x38),
        "plat_info": _le(report[0x40:0x48]),
        "key_info": _le(report[0x48:0x4C]),
        "report_data": octets(0x50, 0x90),
        "measurement": octets(0x90, 0xC0),
        "host_data": octets(0xC0, 0xE0),
        "id_key_digest": octets(0xE0, 0x110),
        "author_key_digest": octets(0x110, 0x140),
        "report_id": octets(0x140, 0x160),
        "report_id_ma": octets(0x160, 0x180),
        "reported_tcb": tcb(0x180),
        "cpuid_fam_id": report[0x188],
        "cpuid_mod_id": report[0x189],
        "cpuid_step": report[0x18A],
        "chip_id": octets(0x1A0, 0x1E0),
        "committed_tcb": tcb(0x1E0),
        "current": version(0x1E8),
        "committed": version(0x1EC),
        "launch_tcb": tcb(0x1F0),
        "launch_mit_vector": _le(report[0x1F8:0x200]),
        "current_mit_vector": _le(report[0x200:0x208]),
        "signature": {"r": octets(0x2A0, 0x2E8), "s": octets(0x2E8, 0x330)},
    }


def trustee_evidence(report: bytes, *named: tuple[str, x509.Certificate]) -> dict[str, Any]:
    """What trustee's attester for SNP sends."""
    chain = [{"cert_type": name, "data": list(der(one))} for name, one in named]
    return {"attestation_report": trustee_report(report), "cert_chain": chain or None}


def as_json(document: object) -> bytes:
    """The document's bytes."""
    return json.dumps(document).encode()
