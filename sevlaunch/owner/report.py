"""Whether an SNP attestation report is what the owner wants: AMD 56860 table "ATTESTATION_REPORT", AMD 57230."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from cryptography import x509
from msgspec import Struct, field

from sevlaunch.owner.checks import Check, Verdict
from sevlaunch.owner.endorsement import Endorsement, EndorsementChain, endorsements
from sevlaunch.profile.policy import SNP_DEBUG, SNP_POLICY, describe_policy
from sevlaunch.sevapi.report import NEWEST_VERSION, OLDEST_VERSION, Report, SigningKey, Tcb, is_signed_by

_ECDSA_P384_SHA384 = 1
_VMPLS = range(4)
_MAX_VERSION = 255

# CPUID family and models of each generation: AMD 57230 section 1.4, "Determining the Product Name".
_MODELS = (
    (0x19, range(0x10), "Milan"),
    (0x19, range(0x10, 0x20), "Genoa"),
    (0x19, range(0xA0, 0xB0), "Genoa"),
    (0x1A, range(0x12), "Turin"),
)


class WantedReport(Struct, frozen=True):
    """What the owner wants of a report; None is not compared.

    ``min_tcb`` are the least security version numbers by their names in :class:`Tcb`.
    """

    digest: bytes | None = None
    policy: int | None = None
    host_data: bytes | None = None
    report_data: bytes | None = None
    id_key_digest: bytes | None = None
    author_key_digest: bytes | None = None
    min_tcb: Mapping[str, int] = field(default_factory=dict)
    vmpl: int | None = None
    allow_debug: bool = False


class Trust(Struct, frozen=True):
    """What is trusted: AMD's roots, or only the one with fingerprint ``root``; any in a rehearsal.

    ``at`` is the time at which the certificates have to be in force.
    """

    at: datetime
    root: str | None = None
    rehearsal: bool = False


class ReportVerdict(Verdict, frozen=True):
    """The answer about a report; ``generation`` is empty where it is not known."""

    report: Report
    generation: str
    not_compared: tuple[str, ...]


def verify_report(
    content: bytes, certificates: Sequence[x509.Certificate], wanted: WantedReport, trust: Trust
) -> ReportVerdict:
    """Check the report in ``content``, 1184 bytes, against ``certificates`` and what is wanted.

    :raise ValueError: when there are not as many bytes.
    """
    report = Report.from_bytes(content)
    generation = _generation_by_cpuid(report)
    checks = _structure(report, content)
    keys = endorsements(certificates)
    signers = [(one, key) for one, key in keys if is_signed_by(content, key.key)]
    if not signers:
        found = f"none of the {len(keys)} VCEK or VLEK certificates given" if keys else "no VCEK or VLEK given that"
        checks.append(Check("signature", False, f"{found} signed it"))
    else:
        # AMD renews the certificate of a key before it ends.
        certificate, key = max(signers, key=lambda signer: signer[0].not_valid_after_utc)
        chain = EndorsementChain.build(certificate, certificates)
        checks.append(Check("signature", True, f"by the key of this {key.kind.name} certificate"))
        checks += chain.checks(key.kind, at=trust.at, trusted=trust.root, rehearsal=trust.rehearsal)
        checks += [_generation(report, key, chain), *_key(report, key)]
        generation = generation or key.generation
    checks += _contents(report, wanted, turin=_is_turin(generation))
    return ReportVerdict(tuple(checks), report, generation, _not_compared(wanted))


def _structure(report: Report, content: bytes) -> list[Check]:
    version = report.version
    # A newer version gives meaning to bytes that are reserved here; what it adds is not looked at.
    reserved = report.reserved_set(content) if version <= NEWEST_VERSION else []
    if version > NEWEST_VERSION:
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
        names[where] = _generation_by_cpuid(report) or "not known"
    if chain.amd_generation:
        names["root"] = chain.amd_generation
    known = {generation for _, _, generation in _MODELS}
    same = len(set(names.values())) == 1 and key.generation in known
    return Check("processor generation", same, ", ".join(f"{name}: {found}" for name, found in names.items()))


def _generation_by_cpuid(report: Report) -> str:
    for family, models, generation in _MODELS:
        if report.version >= 3 and report.cpuid_family == family and report.cpuid_model in models:
            return generation
    return ""


def _is_turin(generation: str) -> bool:
    return generation == "Turin"


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


def _contents(report: Report, wanted: WantedReport, *, turin: bool) -> list[Check]:
    """What the owner asked for."""
    checks: list[Check] = []
    for name, found, value in (
        ("measurement", report.measurement, wanted.digest),
        ("host data", report.host_data, wanted.host_data),
        ("report data", report.report_data, wanted.report_data),
        ("id key digest", report.id_key_digest, wanted.id_key_digest),
        ("author key digest", report.author_key_digest, wanted.author_key_digest),
    ):
        if value is not None:
            same = hmac.compare_digest(found, value)
            checks.append(Check.compared(name, same, value.hex(), found.hex()))
    if wanted.policy is not None:
        same = report.policy == wanted.policy
        checks.append(Check.compared("policy", same, _show_policy(wanted.policy), _show_policy(report.policy)))
    debug = bool(report.policy & SNP_DEBUG)
    detail = "the policy lets the host read and write the guest's memory" if debug else "not allowed by the policy"
    checks.append(Check("debug", wanted.allow_debug or not debug, detail))
    # The host can ask for a report, too, which then proves nothing about who speaks: VMPL 0xffffffff.
    allowed, shown = (_VMPLS, "0 to 3") if wanted.vmpl is None else ((wanted.vmpl,), str(wanted.vmpl))
    checks.append(Check.compared("VMPL", report.vmpl in allowed, shown, str(report.vmpl)))
    if wanted.min_tcb:
        checks += [
            _minimum(name, Tcb.from_bytes(content, turin=turin), wanted.min_tcb)
            for name, content in (("reported", report.reported_tcb), ("launch", report.launch_tcb))
        ]
    return checks


def _minimum(name: str, found: Tcb, minimum: Mapping[str, int]) -> Check:
    # What the processor does not have, FMC before Turin, is below every minimum.
    numbers = {part: -1 if number is None else number for part, number in found._asdict().items()}
    enough = all(numbers[part] >= least for part, least in minimum.items())
    wanted = " ".join(f"{part}={least}" for part, least in minimum.items())
    return Check.compared(f"minimum TCB, {name}", enough, f"at least {wanted}", show_tcb(found))


def _show_policy(policy: int) -> str:
    return f"{policy:#x} ({', '.join(describe_policy(policy, SNP_POLICY)) or 'no bits'})"


def parse_tcb(text: str) -> dict[str, int]:
    """The numbers in text such as ``boot_loader=3,snp=8``.

    :raise ValueError: when it is none.
    """
    found: dict[str, int] = {}
    for part in text.split(","):
        name, _, number = part.strip().partition("=")
        if name not in Tcb._fields or not (number.isascii() and number.isdigit()) or int(number) > _MAX_VERSION:
            raise ValueError(f"--min-tcb: wanted NAME=0 to 255 with one of {', '.join(Tcb._fields)}; found {part!r}")
        found[name] = int(number)
    return found


def report_fields(verdict: ReportVerdict) -> dict[str, Any]:
    """The fields of the report as plain data: bytes in hexadecimal, TCBs by the names of their parts."""
    fields: dict[str, Any] = {}
    for name, value in asdict(verdict.report).items():
        if name.endswith("_tcb"):
            tcb = Tcb.from_bytes(value, turin=_is_turin(verdict.generation))
            fields[name] = {part: number for part, number in tcb._asdict().items() if number is not None}
        else:
            fields[name] = value.hex() if isinstance(value, bytes) else value
    return fields


def show_tcb(tcb: Tcb) -> str:
    """The numbers with their names, as `--min-tcb` takes them."""
    return ",".join(f"{name}={number}" for name, number in tcb._asdict().items() if number is not None)


def _not_compared(wanted: WantedReport) -> tuple[str, ...]:
    given = {
        "measurement": wanted.digest,
        "policy": wanted.policy,
        "report data": wanted.report_data,
        "host data": wanted.host_data,
        "minimum TCB": wanted.min_tcb or None,
    }
    return tuple(name for name, value in given.items() if value is None)
