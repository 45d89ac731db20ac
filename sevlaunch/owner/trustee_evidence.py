"""Reports as trustee's attesters send them: JSON of confidential-containers' trustee, deps/verifier/src/snp/mod.rs.

A guest's evidence has the fields of the report as virtee's sev crate writes them (src/firmware/guest/types/snp.rs,
AttestationReport), and not its bytes: what AMD reserves is zero in it. One from Azure has the HCL report.
"""

from __future__ import annotations

import base64
import json
from typing import Annotated, Any

from msgspec import Meta, Struct

from sevlaunch.documents import decode
from sevlaunch.owner.collected import ReportFile, parse_collected
from sevlaunch.owner.x509_files import parse_certificates, parse_der, parse_revocations
from sevlaunch.sevapi.ecdsa import signature_bytes
from sevlaunch.sevapi.report import Report, Tcb

_U8 = Annotated[int, Meta(ge=0, lt=1 << 8)]
_U32 = Annotated[int, Meta(ge=0, lt=1 << 32)]
_B16 = Annotated[list[_U8], Meta(min_length=16, max_length=16)]
_B32 = Annotated[list[_U8], Meta(min_length=32, max_length=32)]
_B48 = Annotated[list[_U8], Meta(min_length=48, max_length=48)]
_B64 = Annotated[list[_U8], Meta(min_length=64, max_length=64)]
_B72 = Annotated[list[_U8], Meta(min_length=72, max_length=72)]

# What tells such a document from a launch's evidence.
_MARKS = ("attestation_report", "hcl_report", "primary_evidence", "quote")


class _Strict(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class _Tcb(_Strict, frozen=True, kw_only=True):
    fmc: _U8 | None = None
    bootloader: _U8
    tee: _U8
    snp: _U8
    microcode: _U8

    def to_bytes(self) -> bytes:
        return Tcb(self.bootloader, self.tee, self.snp, self.microcode, self.fmc).to_bytes()


class _Version(_Strict, frozen=True, kw_only=True):
    major: _U8
    minor: _U8
    build: _U8


class _Signature(_Strict, frozen=True, kw_only=True):
    r: _B72
    s: _B72


class _Report(_Strict, frozen=True, kw_only=True):
    version: _U32
    guest_svn: _U32
    policy: int
    family_id: _B16
    image_id: _B16
    vmpl: _U32
    sig_algo: _U32
    current_tcb: _Tcb
    plat_info: int
    key_info: _U32
    report_data: _B64
    measurement: _B48
    host_data: _B32
    id_key_digest: _B48
    author_key_digest: _B48
    report_id: _B32
    report_id_ma: _B32
    reported_tcb: _Tcb
    cpuid_fam_id: _U8 | None = None
    cpuid_mod_id: _U8 | None = None
    cpuid_step: _U8 | None = None
    chip_id: _B64
    committed_tcb: _Tcb
    current: _Version
    committed: _Version
    launch_tcb: _Tcb
    launch_mit_vector: int | None = None
    current_mit_vector: int | None = None
    signature: _Signature

    def to_bytes(self) -> bytes:
        report = Report(
            version=self.version,
            guest_svn=self.guest_svn,
            policy=_u64("policy", self.policy),
            family_id=bytes(self.family_id),
            image_id=bytes(self.image_id),
            vmpl=self.vmpl,
            signature_algo=self.sig_algo,
            current_tcb=self.current_tcb.to_bytes(),
            platform_info=_u64("plat_info", self.plat_info),
            key_info=self.key_info,
            report_data=bytes(self.report_data),
            measurement=bytes(self.measurement),
            host_data=bytes(self.host_data),
            id_key_digest=bytes(self.id_key_digest),
            author_key_digest=bytes(self.author_key_digest),
            report_id=bytes(self.report_id),
            report_id_ma=bytes(self.report_id_ma),
            reported_tcb=self.reported_tcb.to_bytes(),
            cpuid_family=self.cpuid_fam_id or 0,
            cpuid_model=self.cpuid_mod_id or 0,
            cpuid_stepping=self.cpuid_step or 0,
            chip_id=bytes(self.chip_id),
            committed_tcb=self.committed_tcb.to_bytes(),
            current_build=self.current.build,
            current_minor=self.current.minor,
            current_major=self.current.major,
            committed_build=self.committed.build,
            committed_minor=self.committed.minor,
            committed_major=self.committed.major,
            launch_tcb=self.launch_tcb.to_bytes(),
            launch_mit_vector=_u64("launch_mit_vector", self.launch_mit_vector or 0),
            current_mit_vector=_u64("current_mit_vector", self.current_mit_vector or 0),
        )
        r, s = (int.from_bytes(bytes(one), "little") for one in (self.signature.r, self.signature.s))
        return report.with_signature(signature_bytes(r, s))


class _Entry(_Strict, frozen=True, kw_only=True):
    # A word, or OTHER with a GUID.
    cert_type: str | dict[str, str]
    data: list[_U8]


class _Evidence(_Strict, frozen=True, kw_only=True):
    attestation_report: _Report
    cert_chain: list[_Entry] | None = None


class _OldAzureEvidence(_Strict, frozen=True, kw_only=True):
    """The same file's EvidenceV0; ``vcek`` is PEM."""

    quote: dict[str, Any]
    report: list[_U8]
    vcek: str


class _AzureEvidence(_Strict, frozen=True, kw_only=True):
    """deps/verifier/src/az_snp_vtpm/compat.rs, EvidenceV1 and V2; the quote of the TPM is not looked at."""

    version: Annotated[int, Meta(ge=1, le=2)]
    tpm_quote: dict[str, Any]
    hcl_report: str
    vcek: str


def is_trustee_evidence(content: bytes) -> bool:
    """Whether ``content`` is a JSON object that has what trustee's evidence has."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and any(mark in document for mark in _MARKS)


def parse_trustee_evidence(content: bytes) -> ReportFile:
    """The report and the certificates in trustee's evidence, which may stand in a request's ``primary_evidence``.

    :raise ValueError: when it is none.
    """
    document = json.loads(content)
    inner = document.get("primary_evidence", document)
    content = json.dumps(inner).encode()
    if isinstance(inner, dict) and "quote" in inner:
        old = decode(content, _OldAzureEvidence)
        return ReportFile(parse_collected(bytes(old.report)).content, parse_certificates(old.vcek.encode()))
    if isinstance(inner, dict) and "hcl_report" in inner:
        azure = decode(content, _AzureEvidence)
        found = parse_collected(_base64url("hcl_report", azure.hcl_report))
        return ReportFile(found.content, (parse_der(_base64url("vcek", azure.vcek)),))
    evidence = decode(content, _Evidence)
    certificates, revocations, skipped = [], [], []
    for entry in evidence.cert_chain or []:
        try:
            if entry.cert_type == "CRL":
                revocations.append(parse_revocations(bytes(entry.data)))
            else:
                certificates.append(parse_der(bytes(entry.data)))
        except ValueError as error:
            skipped.append(f"{entry.cert_type}: {error}")
    report = evidence.attestation_report.to_bytes()
    return ReportFile(report, tuple(certificates), revocations=tuple(revocations), skipped=tuple(skipped))


def _u64(name: str, value: int) -> int:
    if not 0 <= value < 1 << 64:
        raise ValueError(f"{name}: wanted 64 bits, found {value}")
    return value


def _base64url(name: str, text: str) -> bytes:
    try:
        return base64.b64decode(text.encode(), altchars=b"-_", validate=True)
    except ValueError as error:
        raise ValueError(f"{name}: wanted base64url: {error}") from error
