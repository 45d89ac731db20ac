"""A rehearsed launch, from its profile to a verifier that affirms it: with trustee's default policy and our own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests import needs
from tests.conftest import PROFILES, Command
from tests.owner.verifiers import AFFIRMING, DEFAULT_POLICY, registered, trust_claims
from tests.rehearsal.owner import rehearsed


@pytest.fixture(autouse=True)
def _kvm() -> None:
    needs.rehearsal()


def leaves(claims: dict[str, Any]) -> dict[str, Any]:
    """What a policy compares of a report."""
    return {name: value for name, value in claims["snp"].items() if name != "chip_id"}


def test_a_rehearsed_launch_is_affirmed_and_nothing_else_is(sevlaunch: Command, base: Path) -> None:
    rehearsed(sevlaunch, "sev-snp", "10.0", None, vcpus=2)
    sevlaunch("resume", "sev-snp")
    (base / "evidence.json").write_text(json.dumps(sevlaunch("evidence", "sev-snp").json))
    sevlaunch("down", "sev-snp", "--now")
    claims = sevlaunch("owner", "report", base / "evidence.json", "--claims", "--rehearsal").json
    profile: tuple[str | Path, ...] = (PROFILES / "sev-snp.yaml", "--firmware", needs.amdsev_image())
    given = ("owner", "reference-values", *profile, "--set", "cpu.count=2", "--report", base / "evidence.json")
    values = registered(sevlaunch(*given, "--format", "rvps").json)
    policy = sevlaunch(*given, "--format", "rego").stdout
    assert trust_claims(DEFAULT_POLICY, claims, values) == AFFIRMING
    assert trust_claims(policy, claims) == AFFIRMING
    for name, value in leaves(claims).items():
        changed = not value if isinstance(value, bool) else value + 1 if isinstance(value, int) else "00" + value[2:]
        other = {**claims, "snp": {**claims["snp"], name: changed}}
        assert trust_claims(DEFAULT_POLICY, other, values) != AFFIRMING, name
        assert trust_claims(policy, other) != AFFIRMING, name
    for name in values:
        assert trust_claims(DEFAULT_POLICY, claims, {**values, name: None}) != AFFIRMING, name
