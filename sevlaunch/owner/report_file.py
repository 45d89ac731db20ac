"""Attestation reports from files: as they are, with what stands around them, or in the evidence of a launch."""

from __future__ import annotations

import base64
from pathlib import Path

from sevlaunch.errors import EvidenceError, InsecureUse
from sevlaunch.evidence import MAX_BYTES
from sevlaunch.files import read_bounded, recognise
from sevlaunch.owner.claims import parse_claims
from sevlaunch.owner.collected import ReportFile, parse_collected, sized
from sevlaunch.owner.go_attestation import is_attestation, parse_attestation
from sevlaunch.owner.trustee_evidence import is_trustee_evidence, parse_trustee_evidence
from sevlaunch.owner.x509_files import parse_der
from sevlaunch.sevapi.report import REPORT_BYTES

_WHAT = "report"
_WANTED = f"a report of {REPORT_BYTES} bytes, go-sev-guest's message, or evidence in JSON"


def read_report(file: Path) -> ReportFile:
    """The report in ``file``, in any of the forms of :func:`report_from_bytes`.

    :raise EvidenceError: when it is none of these.
    :raise UsageError: when it can't be read.
    """
    return report_from_bytes(read_bounded(file, _WHAT, MAX_BYTES, error=EvidenceError), str(file))


def report_from_bytes(content: bytes, name: str = "what was sent") -> ReportFile:
    """The report in ``content``, as a guest, a host or a collector wrote it.

    Raw, in base64, base64url or hexadecimal: the report by itself or in the processor's answer to a guest
    (``/dev/sev-guest``), with or without a host's table of certificates behind it (an extended report); Azure's HCL
    report; go-sev-guest's Attestation. In JSON: the evidence of a launch, and trustee's.

    :param name: what it is called in an error.
    :raise EvidenceError: when it is none of these, or has more than any has.
    """
    if len(content) > MAX_BYTES:
        raise EvidenceError(f"{_WHAT}: {name} has more than {MAX_BYTES} bytes", hint="is it something else?")
    if content.lstrip().startswith(b"{"):
        return _from_trustee(content, name) if is_trustee_evidence(content) else _from_evidence(content, name)
    return recognise(content, _parse, name=f"{_WHAT}: {name}", wanted=_WANTED, error=EvidenceError)


def parse_report(content: bytes, name: str, *, rehearsal: bool = False) -> ReportFile:
    """The report in ``content``, raw, with the table of certificates that may stand behind it.

    :param name: what it is called in an error.
    :param rehearsal: an emulated processor made it.
    :raise EvidenceError: when it is none.
    """
    try:
        found = parse_collected(content)
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


def _from_evidence(content: bytes, file: str) -> ReportFile:
    claims = parse_claims(content, f"{_WHAT}: the evidence in {file}")
    if claims.report is None:
        raise EvidenceError(
            f"{_WHAT}: the evidence in {file} has no report", hint="only the guest can fetch one, in a SEV-SNP launch"
        )
    try:
        report = sized(_decoded(claims.report))
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


def _parse(content: bytes) -> ReportFile:
    return parse_attestation(content) if is_attestation(content) else parse_collected(content)


def _from_trustee(content: bytes, file: str) -> ReportFile:
    try:
        return parse_trustee_evidence(content)
    except ValueError as error:
        raise EvidenceError(
            f"{_WHAT}: trustee's evidence in {file} can't be read: {error}", hint="is it cut short, or another TEE's?"
        ) from error
