"""A report with what came with it, and what collectors put around its bytes."""

from __future__ import annotations

from cryptography import x509
from msgspec import Struct

from sevlaunch.owner.x509_files import parse_certificate_table
from sevlaunch.sevapi.certificate_table import is_table
from sevlaunch.sevapi.report import REPORT_BYTES
from sevlaunch.sevapi.report_response import is_response, split_response

# Azure's paravisor keeps the report behind a header of 32 bytes, with data of its own behind it.
_HCL, _HCL_HEADER_BYTES = b"HCLA", 0x20


class ReportFile(Struct, frozen=True):
    """A report (1184 bytes) with what came with it; ``skipped``: what of it is no certificate, and why."""

    content: bytes
    certificates: tuple[x509.Certificate, ...] = ()
    rehearsal: bool = False
    revocations: tuple[x509.CertificateRevocationList, ...] = ()
    skipped: tuple[str, ...] = ()


def parse_collected(content: bytes) -> ReportFile:
    """The report in ``content``: by itself, in the processor's answer to a guest, or in Azure's HCL report.

    Behind the first two may stand the host's table of certificates: an extended report.

    :raise ValueError: when it is none of these.
    """
    if content.startswith(_HCL) and len(content) >= _HCL_HEADER_BYTES + REPORT_BYTES:
        return ReportFile(content[_HCL_HEADER_BYTES:][:REPORT_BYTES])
    if is_response(content):
        report, behind = split_response(content)
    else:
        report, behind = content[:REPORT_BYTES], content[REPORT_BYTES:]
    if not behind:
        return ReportFile(sized(report))
    if not is_table(behind):
        raise ValueError(f"a report has {REPORT_BYTES} bytes, that has {len(content)}, and no table of certificates")
    found = parse_certificate_table(behind)
    return ReportFile(report, found.certificates, revocations=found.revocations, skipped=found.skipped)


def sized(content: bytes) -> bytes:
    """A report's bytes as they are.

    :raise ValueError: when they are not as many.
    """
    if len(content) != REPORT_BYTES:
        raise ValueError(f"a report has {REPORT_BYTES} bytes, that has {len(content)}")
    return content
