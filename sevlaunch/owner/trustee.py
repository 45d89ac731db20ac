"""Reference values, claims and messages as confidential-containers' trustee has them.

Names and claims are those of attestation-service/src/ear_token/ear_default_policy_cpu.rego and
deps/verifier/src/snp/mod.rs, messages those of rvps/src/lib.rs and rvps/src/reference_value.rs.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from sevlaunch.errors import UsageError
from sevlaunch.owner.reference_values import ReferenceValues
from sevlaunch.profile.policy import SNP_DEBUG, SNP_MIGRATE_MA, SNP_POLICY
from sevlaunch.sevapi.report import Report, Tcb

_VERSION = "0.1.0"
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_BITS = SNP_POLICY.bits
# rvps/docs/reference-value-uri.md: a namespace of one or more segments, and a tag.
_URI = re.compile(r"rvps:///[A-Za-z0-9._~-]+(?:/[A-Za-z0-9._~-]+)*(?::(?P<tag>[A-Za-z0-9._-]+))?")
_POLICY = "trustee's policy"


def trustee_values(values: ReferenceValues) -> dict[str, Any]:
    """What trustee's default policy asks for, by its names; with ``values.name``, by names below that one.

    :raise UsageError: when something is missing, or the default policy affirms no such launch.
    """
    policy = affirmed_policy(values)
    values.require_platform("trustee's default policy", "smt", "tsme")
    tcbs, bits = values.platform.tcbs, values.platform.bits
    found: dict[str, Any] = {
        "snp_launch_measurement": list(values.digests),
        "snp_bootloader": _each(tcb.boot_loader for tcb in tcbs),
        "snp_microcode": _each(tcb.microcode for tcb in tcbs),
        "snp_snp_svn": _each(tcb.snp for tcb in tcbs),
        "snp_tee_svn": _each(tcb.tee for tcb in tcbs),
        "snp_smt_enabled": bits["smt"],
        "snp_tsme_enabled": bits["tsme"],
        "snp_guest_abi_major": policy >> SNP_POLICY.major_shift & 0xFF,
        "snp_guest_abi_minor": policy >> SNP_POLICY.minor_shift & 0xFF,
        "snp_single_socket": bool(policy & _BITS["single-socket"]),
        "snp_smt_allowed": bool(policy & _BITS["smt"]),
    }
    return {reference_name(values.name, name): value for name, value in found.items()}


def affirmed_policy(values: ReferenceValues) -> int:
    """The policy of all launches, which neither allows debugging nor a migration agent.

    :raise UsageError: when it does, or there are several.
    """
    policy = values.only_policy(_POLICY)
    for name, bit in (("debugging", SNP_DEBUG), ("a migration agent", SNP_MIGRATE_MA)):
        if policy & bit:
            raise UsageError(
                f"the launch's policy allows {name}, which trustee's policies affirm of no guest",
                hint="launch it with another policy",
            )
    return policy


def reference_name(name: str, value: str) -> str:
    """The name of one reference value below ``name``, which may be empty.

    :raise UsageError: when ``name`` is none of RVPS's.
    """
    if not name:
        return value
    match = _URI.fullmatch(name)
    if match is None:
        raise UsageError(
            f"wanted a name such as rvps:///github.com/OWNER/IMAGE:v1, found {name!r}",
            hint="segments of letters, digits, '-', '_' and '.', and a tag that does not change",
        )
    tag = f":{match['tag']}" if match["tag"] else ""
    return f"{name.removesuffix(tag)}/{value}{tag}"


def rvps_message(values: ReferenceValues) -> dict[str, str]:
    """The message that registers :func:`trustee_values` with an RVPS, of the type that its sample extractor takes.

    RVPS itself says how long they hold: 12 months.
    """
    return sample_message(trustee_values(values))


def sample_message(values: Mapping[str, Any]) -> dict[str, str]:
    """The message that registers these values."""
    payload = base64.b64encode(json.dumps(values).encode()).decode()
    return {"version": _VERSION, "type": "sample", "payload": payload}


def stored_values(values: ReferenceValues) -> list[dict[str, Any]]:
    """:func:`trustee_values` as an RVPS stores them: each with its name, and until when it holds."""
    expiration = values.expires.strftime(_TIME)
    return [
        {"version": _VERSION, "name": name, "expiration": expiration, "value": value}
        for name, value in trustee_values(values).items()
    ]


def policy_input(report: Report, tcb: Tcb) -> dict[str, Any]:
    """What a policy of trustee's attestation service gets to see of a report that it has verified.

    HOST_DATA and REPORT_DATA stand beside the claims of the TEE (ear_token/broker.rs, transform_claims).

    :param tcb: the reported TCB.
    """
    return {
        "snp": _claims(report, tcb),
        "init_data": report.host_data.hex(),
        "report_data": report.report_data.hex(),
    }


def policy_claims(policy: int) -> dict[str, Any]:
    """What a policy of the attestation service sees of a guest's policy."""
    return {
        "policy_abi_major": policy >> SNP_POLICY.major_shift & 0xFF,
        "policy_abi_minor": policy >> SNP_POLICY.minor_shift & 0xFF,
        "policy_smt_allowed": bool(policy & _BITS["smt"]),
        "policy_migrate_ma": bool(policy & SNP_MIGRATE_MA),
        "policy_debug_allowed": bool(policy & SNP_DEBUG),
        "policy_single_socket": bool(policy & _BITS["single-socket"]),
    }


def _claims(report: Report, tcb: Tcb) -> dict[str, Any]:
    return {
        **policy_claims(report.policy),
        "reported_tcb_bootloader": tcb.boot_loader,
        "reported_tcb_tee": tcb.tee,
        "reported_tcb_snp": tcb.snp,
        "reported_tcb_microcode": tcb.microcode,
        "platform_tsme_enabled": "tsme" in report.platform_bits,
        "platform_smt_enabled": "smt" in report.platform_bits,
        "measurement": report.measurement.hex(),
        "chip_id": report.chip_id.hex(),
    }


def _each(numbers: Iterable[int]) -> list[int]:
    return sorted(set(numbers))
