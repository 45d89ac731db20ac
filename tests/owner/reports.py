"""Verdicts on attestation reports, for tests."""

from __future__ import annotations

from typing import Any

from cryptography import x509

from sevlaunch.owner.endorsement import root_fingerprint
from sevlaunch.owner.report import ReportVerdict, Trust, verify_report
from sevlaunch.owner.report_wanted import ASKED, WantedReport
from sevlaunch.owner.x509_files import parse_certificates
from tests.owner.pki import NOW, Processor
from tests.published import vector

AMD_ONLY = Trust(at=NOW)


def wanting(**asked: Any) -> WantedReport:
    """What is asked for, and nothing else."""
    return WantedReport(**asked, waived=frozenset(ASKED))


def trusted(ours: Processor) -> Trust:
    """Our own root, and no other."""
    return Trust(at=NOW, root=root_fingerprint(ours.certificates[2:]))


def verdict(ours: Processor, wanted: WantedReport | None = None, **changes: Any) -> ReportVerdict:
    """What becomes of a report of our processor with some fields changed."""
    return verify_report(ours.signed(**changes), ours.certificates, wanted or wanting(), trusted(ours))


def failures(found: ReportVerdict) -> list[str]:
    """The checks that say no."""
    return [check.name for check in found.checks if check.ok is not True]


def real_report() -> bytes:
    """A report of a Milan."""
    return bytes.fromhex(vector("milan-report.hex").decode())


def real(report: bytes, *files: bytes, wanted: WantedReport | None = None, trust: Trust = AMD_ONLY) -> ReportVerdict:
    """The verdict on ``report``; files that hold no certificates are passed over, as in a folder."""
    certificates: list[x509.Certificate] = []
    for file in files:
        try:
            certificates += parse_certificates(file)
        except ValueError:
            continue
    return verify_report(report, certificates, wanted or wanting(), trust)
