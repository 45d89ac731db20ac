"""Attestation reports from files: as they are, with what stands around them, or in the evidence of a launch."""

from __future__ import annotations

import base64
from pathlib import Path

from cryptography import x509
from msgspec import Struct

from sevlaunch.errors import EvidenceError, InsecureUse
from sevlaunch.evidence import MAX_BYTES
from sevlaunch.files import read_bounded, recognise
from sevlaunch.owner.claims import parse_claims
from sevlaunch.owner.x509_files import parse_certificate_table, parse_der
from sevlaunch.sevapi.certificate_table import is_table
from sevlaunch.sevapi.report import REPORT_BYTES

_WHAT = "report"
# Azure's paravisor keeps the report behind a header of 32 bytes, with data of its own behind it.
_HCL, _HCL_HEADER_BYTES = b"HCLA", 0x20
_WANTED = f"{REPORT_BYTES} bytes, or evidence in JSON"


class ReportFile(Struct, frozen=True):
    """A report (1184 bytes) with what came with it; ``skipped``: what of it is no certificate, and why."""

    content: bytes
    certificates: tuple[x509.Certificate, ...] = ()
    rehearsal: bool = False
    revocations: tuple[x509.CertificateRevocationList, ...] = ()
    skipped: tuple[str, ...] = ()


def read_report(file: Path) -> ReportFile:
    """The report in ``file``: raw, in base64 or in hexadecimal, or under ``report`` in evidence (JSON).

    A host's certificate table may follow it (an extended report), and it may stand in Azure's HCL report.

    :raise EvidenceError: when it is none of these.
    :raise UsageError: when it can't be read.
    """
    content = read_bounded(file, _WHAT, MAX_BYTES, error=EvidenceError)
    if content.lstrip().startswith(b"{"):
        return _from_evidence(content, file)
    return recognise(content, _around, name=f"{_WHAT}: {file}", wanted=_WANTED, error=EvidenceError)


def parse_report(content: bytes, name: str, *, rehearsal: bool = False) -> ReportFile:
    """The report in ``content``, raw, with the table of certificates that may stand behind it.

    :param name: what it is called in an error.
    :param rehearsal: an emulated processor made it.
    :raise EvidenceError: when it is none.
    """
    try:
        found = _around(content)
    except ValueError as error:
        raise EvidenceError(f"{name} is no report: {error}", hint="ask once more") from error
    return ReportFile(found.content, found.certificates, rehearsal, found.revocations, found.skipped)


def require_no_rehearsal(found: ReportFile, *, allowed: bool) -> None:
    """Refuse the report of an emulated processor.

    :raise InsecureUse: unless it is ``allowed``.
    """
    if found.rehearsal and not allowed:
        raise InsecureUse(
            "the report is that of a rehearsal: an emulated processor made it, and its answer proves nothing",
            hint="--rehearsal checks it all the same",
        )


def _from_evidence(content: bytes, file: Path) -> ReportFile:
    claims = parse_claims(content, f"{_WHAT}: the evidence in {file}")
    if claims.report is None:
        raise EvidenceError(
            f"{_WHAT}: the evidence in {file} has no report", hint="only the guest can fetch one, in a SEV-SNP launch"
        )
    try:
        report = _sized(_decoded(claims.report))
        return ReportFile(report, tuple(parse_der(_decoded(one)) for one in claims.certificates), claims.rehearsal)
    except ValueError as error:
        raise EvidenceError(
            f"{_WHAT}: the evidence in {file} can't be read: {error}", hint="is it cut short, or another file?"
        ) from error


def _decoded(text: str) -> bytes:
    decoded = base64.b64decode(text, validate=True)
    if base64.b64encode(decoded) != text.encode():
        raise ValueError("the base64 has bits that stand for nothing")
    return decoded


def _around(content: bytes) -> ReportFile:
    """The report with what stands around it."""
    if content.startswith(_HCL) and len(content) >= _HCL_HEADER_BYTES + REPORT_BYTES:
        return ReportFile(content[_HCL_HEADER_BYTES:][:REPORT_BYTES])
    table = content[REPORT_BYTES:]
    if not is_table(table):
        return ReportFile(_sized(content))
    found = parse_certificate_table(table)
    return ReportFile(content[:REPORT_BYTES], found.certificates, revocations=found.revocations, skipped=found.skipped)


def _sized(content: bytes) -> bytes:
    if len(content) != REPORT_BYTES:
        raise ValueError(f"a report has {REPORT_BYTES} bytes, that has {len(content)}")
    return content
