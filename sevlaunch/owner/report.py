"""Whether an SNP attestation report is what the owner wants: AMD 56860 table "ATTESTATION_REPORT", AMD 57230."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from cryptography import x509
from msgspec import Struct

from sevlaunch.owner.checks import Check, Verdict
from sevlaunch.owner.endorsement import Endorsement, EndorsementChain, endorsements
from sevlaunch.owner.generations import GENERATIONS, generation_of, has_fmc
from sevlaunch.owner.lacking import Lack, lacking_issuers, lacking_key
from sevlaunch.owner.report_wanted import WantedReport, check_wanted, show_policy, show_tcb, tcb_parts
from sevlaunch.owner.revocation import revocation_checks
from sevlaunch.profile.policy import SNP_POLICY, describe_policy
from sevlaunch.sevapi.report import (
    NEWEST_VERSION,
    NO_MIGRATION_AGENT,
    OLDEST_VERSION,
    Report,
    SigningKey,
    Tcb,
    is_signed_by,
)

_ECDSA_P384_SHA384 = 1
# The first version that has the mitigation vectors.
_WITH_MITIGATIONS = 5


class Trust(Struct, frozen=True):
    """What is trusted: AMD's roots, or only the one with fingerprint ``root``; any in a rehearsal.

    ``at`` is the time at which the certificates have to be in force. ``revocations``: AMD's revocation lists; with one
    or more the chain has to be covered by them.
    """

    at: datetime
    root: str | None = None
    rehearsal: bool = False
    revocations: tuple[x509.CertificateRevocationList, ...] = ()


class ReportVerdict(Verdict, frozen=True):
    """The answer about a report; ``generation`` is empty where it is not known.

    ``lacks``: the certificates that were not given, without which the answer is no, whatever the report is worth.
    """

    report: Report
    generation: str
    not_compared: tuple[str, ...]
    lacks: tuple[Lack, ...] = ()


def verify_report(
    content: bytes, certificates: Sequence[x509.Certificate], wanted: WantedReport, trust: Trust
) -> ReportVerdict:
    """Check the report in ``content``, 1184 bytes, against ``certificates`` and what is wanted.

    :raise ValueError: when there are not as many bytes.
    :raise InsecureUse: when the answer would mean nothing, :meth:`WantedReport.require_asked`.
    """
    wanted.require_asked()
    report = Report.from_bytes(content)
    generation = generation_of(report)
    checks = _structure(report, content)
    keys = endorsements(certificates)
    signers = [(one, key) for one, key in keys if is_signed_by(content, key.key)]
    if not signers:
        lacks = lacking_key(content, [key for _, key in keys])
        checks.append(Check("signature", False, _unsigned(report, len(keys), lacks)))
    else:
        # AMD renews the certificate of a key before it ends.
        certificate, key = max(signers, key=lambda signer: signer[0].not_valid_after_utc)
        chain = EndorsementChain.build(certificate, certificates)
        lacks = lacking_issuers(content, chain, key)
        checks.append(Check("signature", True, f"by the key of this {key.kind.name} certificate"))
        checks += chain.checks(key.kind, at=trust.at, trusted=trust.root, rehearsal=trust.rehearsal)
        if trust.revocations:
            checks += revocation_checks(chain, trust.revocations, at=trust.at)
        checks += [_generation(report, key, chain), *_key(report, key)]
        generation = generation or key.generation
    checks += check_wanted(report, wanted, generation=generation)
    not_compared = wanted.not_compared if trust.revocations else (*wanted.not_compared, "revocation lists")
    return ReportVerdict(tuple(checks), report, generation, not_compared, lacks)


def _unsigned(report: Report, keys: int, lacks: tuple[Lack, ...]) -> str:
    """Why no key that was given is that of the report's signature."""
    if report.signing_key == SigningKey.NONE:
        return "no key has signed it, as the report says itself: the host hides its key from this guest"
    found = f"none of the {keys} VCEK or VLEK certificates given" if keys else "no VCEK or VLEK given that"
    reason = "that of this processor's key is lacking" if lacks else "that of this processor's key is among them"
    return f"{found} signed it; {reason}" if keys else f"{found} signed it"


def _structure(report: Report, content: bytes) -> list[Check]:
    version = report.version
    # A newer version gives meaning to bytes that are reserved here; what it adds is not looked at.
    reserved = report.reserved_set(content) if version <= NEWEST_VERSION else []
    reserved += report.behind_signature_set(content)
    if version > NEWEST_VERSION and not reserved:
        shown = f"not looked at: version {version} is newer than {NEWEST_VERSION}"
    else:
        shown = f"not zero: {', '.join(reserved[:5])}" if reserved else "are zero"
    return [
        Check.compared("version", version >= OLDEST_VERSION, f"at least {OLDEST_VERSION}", str(version)),
        Check("reserved bytes", not reserved, shown),
        Check.compared(
            "signature algorithm",
            report.signature_algo == _ECDSA_P384_SHA384,
            f"{_ECDSA_P384_SHA384} (ECDSA P-384 with SHA-384)",
            str(report.signature_algo),
        ),
    ]


def _generation(report: Report, key: Endorsement, chain: EndorsementChain) -> Check:
    names = {"certificate": key.generation}
    if report.version >= 3:
        where = f"report (CPUID family {report.cpuid_family:#x}, model {report.cpuid_model:#x})"
        names[where] = generation_of(report) or "not known"
    if chain.amd_generation:
        names["root"] = chain.amd_generation
    same = len(set(names.values())) == 1 and key.generation in GENERATIONS
    return Check("processor generation", same, ", ".join(f"{name}: {found}" for name, found in names.items()))


def _key(report: Report, key: Endorsement) -> list[Check]:
    """What the report says of the key that signed it."""
    names = {kind.value: kind.name for kind in SigningKey}
    said = names.get(report.signing_key, str(report.signing_key))
    checks = [
        Check("signing key", report.signing_key == key.kind, f"certificate: {key.kind.name}, report: {said}"),
        Check(
            "TCB of the certificate",
            key.tcb.to_bytes() == report.reported_tcb,
            f"certificate: {show_tcb(key.tcb)}; report: "
            f"{show_tcb(Tcb.from_bytes(report.reported_tcb, turin=key.tcb.fmc is not None))}",
        ),
    ]
    if key.kind is SigningKey.VLEK:
        return [*checks, Check("cloud provider", True, f"the key is for {key.csp_id!r}")]
    if not any(report.chip_id):
        return [*checks, Check("chip id", True, f"masked by the host; the certificate is for {key.hardware_id.hex()}")]
    same = report.chip_id == key.hardware_id.ljust(len(report.chip_id), b"\0")
    detail = f"certificate: {key.hardware_id.hex()}"
    return [*checks, Check("chip id", same, detail if same else f"{detail}, report: {report.chip_id.hex()}")]


def report_fields(verdict: ReportVerdict) -> dict[str, Any]:
    """The fields of the report as plain data: bytes in hexadecimal, TCBs by the names of their parts.

    ``policy_bits`` and ``platform_bits`` are the names of what is set in ``policy`` and ``platform_info``.
    """
    fields: dict[str, Any] = {}
    for name, value in asdict(verdict.report).items():
        if name.endswith("_tcb"):
            fields[name] = tcb_parts(Tcb.from_bytes(value, turin=has_fmc(verdict.generation)))
        else:
            fields[name] = value.hex() if isinstance(value, bytes) else value
    fields["policy_bits"] = describe_policy(verdict.report.policy, SNP_POLICY)
    fields["platform_bits"] = verdict.report.platform_bits
    return fields


def report_lines(verdict: ReportVerdict) -> list[tuple[str, str]]:
    """What the report says of guest and platform, by name, for people."""
    report, fmc = verdict.report, has_fmc(verdict.generation)
    tcbs = (("current", report.current_tcb), ("committed", report.committed_tcb), ("launch", report.launch_tcb))
    current = f"{report.current_major}.{report.current_minor} build {report.current_build}"
    committed = f"{report.committed_major}.{report.committed_minor} build {report.committed_build}"
    mitigations = f"launch {report.launch_mit_vector:#x}, current {report.current_mit_vector:#x}"
    return [
        ("policy", show_policy(report.policy)),
        ("platform", ", ".join(report.platform_bits) or "no bits"),
        ("guest SVN", str(report.guest_svn)),
        ("family id", report.family_id.hex()),
        ("image id", report.image_id.hex()),
        ("report data", report.report_data.hex()),
        ("migration agent", "none" if report.report_id_ma == NO_MIGRATION_AGENT else report.report_id_ma.hex()),
        ("firmware ABI", f"{current}, committed {committed}"),
        *((f"{name} TCB", show_tcb(Tcb.from_bytes(content, turin=fmc))) for name, content in tcbs),
        ("mitigations", mitigations if report.version >= _WITH_MITIGATIONS else "not told before version 5"),
    ]
