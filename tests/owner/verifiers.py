"""The verifiers' side: a policy as trustee's default one is written, its RVPS, and an engine for policies."""

from __future__ import annotations

import base64
import json
from datetime import datetime
from typing import Any

import regorus

# The three claims as trustee's default policy makes them: executables by the measurement, hardware by the reported TCB,
# configuration by policy and platform. 33, 97 and 36 are not affirming.
DEFAULT_POLICY = """
package policy

import rego.v1

default executables := 33

default hardware := 97

default configuration := 36

trust_claims := {"executables": executables, "hardware": hardware, "configuration": configuration}

value(name) := query_reference_value(name)

executables := 3 if input.snp.measurement in value("snp_launch_measurement")

hardware := 2 if {
    input.snp.reported_tcb_bootloader in value("snp_bootloader")
    input.snp.reported_tcb_tee in value("snp_tee_svn")
    input.snp.reported_tcb_snp in value("snp_snp_svn")
    input.snp.reported_tcb_microcode in value("snp_microcode")
}

configuration := 2 if {
    not input.snp.policy_debug_allowed
    not input.snp.policy_migrate_ma
    input.snp.platform_smt_enabled == value("snp_smt_enabled")
    input.snp.platform_tsme_enabled == value("snp_tsme_enabled")
    input.snp.policy_abi_major == value("snp_guest_abi_major")
    input.snp.policy_abi_minor == value("snp_guest_abi_minor")
    input.snp.policy_single_socket == value("snp_single_socket")
    input.snp.policy_smt_allowed == value("snp_smt_allowed")
}
"""
# What trustee gives a policy in place of this function.
_QUERY = "\nquery_reference_value(name) := data.reference_values[name]\n"
AFFIRMING = {"executables": 3, "hardware": 2, "configuration": 2}


def trust_claims(policy: str, claims: dict[str, Any], values: dict[str, Any] | None = None) -> dict[str, int]:
    """The trust claims that a policy comes to, of those that are affirmed."""
    engine = regorus.Engine()
    engine.add_policy("policy.rego", policy + (_QUERY if values is not None else ""))
    engine.add_data_json(json.dumps({"reference_values": values or {}}))
    engine.set_input_json(json.dumps(claims))
    found = json.loads(engine.eval_rule_as_json("data.policy.trust_claims"))
    return {name: int(number) for name, number in found.items() if name in AFFIRMING}


def registered(message: dict[str, Any]) -> dict[str, Any]:
    """The values that an RVPS takes out of a message, as its sample extractor does: rvps/src/lib.rs."""
    assert set(message) == {"version", "type", "payload"}
    assert (message["version"], message["type"]) == ("0.1.0", "sample")
    payload = json.loads(base64.b64decode(message["payload"], validate=True))
    assert isinstance(payload, dict)
    return payload


def stored(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """The values in an RVPS's store: rvps/src/reference_value.rs."""
    for entry in entries:
        assert set(entry) == {"version", "name", "expiration", "value"}
        assert entry["version"] == "0.1.0"
        datetime.strptime(entry["expiration"], "%Y-%m-%dT%H:%M:%SZ")
    assert len({entry["name"] for entry in entries}) == len(entries)
    return {entry["name"]: entry["value"] for entry in entries}
