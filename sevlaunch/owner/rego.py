"""A policy for trustee's attestation service that affirms exactly the launches of an owner, with no reference values.

It gives what ``data.policy.trust_claims`` of a policy of trustee's has to (attestation-service/src/ear_token), with the
numbers of AR4SI (draft-ietf-rats-ar4si): affirming are 2 and 3.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from sevlaunch.owner.reference_values import ReferenceValues
from sevlaunch.owner.trustee import affirmed_policy, policy_claims
from sevlaunch.sevapi.report import CHIP_ID_BYTES, Tcb
from sevlaunch.text import visible

# What a policy says of what it does not look at.
_NO_ASSERTION = ("file-system", "instance-identity", "runtime-opaque", "storage-opaque", "sourced-data")


def rego_policy(values: ReferenceValues) -> str:
    """The policy, in rego.

    :raise UsageError: when something is missing, or a verifier can't affirm such a launch.
    """
    policy = affirmed_policy(values)
    values.require_platform("a policy", "smt", "tsme")
    bits = values.platform.bits
    launches = {
        (one.digest.hex(), one.host_data.hex() if one.host_data is not None else None) for one in values.launches
    }
    chips = sorted(one.ljust(CHIP_ID_BYTES, b"\0").hex() for one in values.platform.chip_ids)
    configuration = {
        **policy_claims(policy),
        "platform_smt_enabled": bits["smt"],
        "platform_tsme_enabled": bits["tsme"],
    }
    return "\n".join(
        [
            "# Affirms the launches listed here, on the platforms listed here, and nothing else.",
            # A comment ends where its line does.
            f"# {visible(', '.join(dict.fromkeys(one.source for one in values.launches)))}",
            "package policy",
            "",
            "import rego.v1",
            "",
            "# AR4SI: not recognized, not recognized, not available.",
            "default executables := 33",
            "",
            "default hardware := 97",
            "",
            "default configuration := 36",
            "",
            "trust_claims := {",
            '\t"executables": executables,',
            '\t"hardware": hardware,',
            '\t"configuration": configuration,',
            *(f'\t"{name}": 0,' for name in _NO_ASSERTION),
            "}",
            "",
            "extensions := []",
            "",
            *_set("launches", [_launch(*one) for one in sorted(launches, key=str)]),
            *_set("tcbs", [_tcb(one) for one in values.platform.tcbs]),
            *(_set("chips", chips) if chips else []),
            "executables := 3 if {",
            "\tsome launch in launches",
            "\tinput.snp.measurement == launch.measurement",
            "\thost_data_fits(launch)",
            "}",
            "",
            "host_data_fits(launch) if launch.init_data == null",
            "",
            "host_data_fits(launch) if input.init_data == launch.init_data",
            "",
            "hardware := 2 if {",
            "\tsome tcb in tcbs",
            *(f"\tinput.snp.reported_tcb_{name} == tcb.{name}" for name in _PARTS),
            *(["\tinput.snp.chip_id in chips"] if chips else []),
            "}",
            "",
            "configuration := 2 if {",
            *(f"\tinput.snp.{name} == {json.dumps(value)}" for name, value in configuration.items()),
            "}",
            "",
        ]
    )


_PARTS = {"bootloader": "boot_loader", "tee": "tee", "snp": "snp", "microcode": "microcode"}


def _tcb(tcb: Tcb) -> dict[str, int]:
    return {name: getattr(tcb, part) for name, part in _PARTS.items()}


def _launch(measurement: str, host_data: str | None) -> dict[str, str | None]:
    return {"measurement": measurement, "init_data": host_data}


def _set(name: str, values: Sequence[Any]) -> Iterable[str]:
    return (f"{name} := {{", *(f"\t{json.dumps(one)}," for one in values), "}", "")
