"""An encrypted profile on a machine without SEV: exit 4, no QEMU, everything that is missing, how to get it."""

from __future__ import annotations

import pytest

from tests import needs
from tests.conftest import PROFILES, Command


@pytest.fixture(autouse=True)
def _no_sev_here() -> None:
    needs.no_sev("nothing is missing")


@pytest.mark.parametrize("profile", ["sev", "sev-es", "sev-snp", "sles15-sev"])
def test_up_lists_what_is_missing_and_starts_nothing(profile: str, sevlaunch: Command) -> None:
    result = sevlaunch("up", PROFILES / f"{profile}.yaml", check=4)
    assert result.stdout == ""
    for part in ("processor: ", "/dev/sev: missing", "load the ccp module"):
        assert part in result.stderr
    assert "Traceback" not in result.stderr
    assert sevlaunch.left_behind() == []


def test_the_same_as_json_names_each_thing_and_its_remedy(sevlaunch: Command) -> None:
    import json

    result = sevlaunch("up", PROFILES / "sev.yaml", "--format", "json", check=4)
    error = json.loads(result.stderr)["error"]
    assert (error["kind"], error["exit_code"]) == ("HostError", 4)
    assert len(error["problems"]) >= 2
    assert all(problem["message"] and problem["hint"] for problem in error["problems"])


def test_no_encrypted_profile_is_silently_started_unencrypted(sevlaunch: Command) -> None:
    sevlaunch("up", PROFILES / "sev.yaml", "--paused", check=4)
    sevlaunch("up", PROFILES / "sev.yaml", "--set", "accel=tcg", check=3)
    assert sevlaunch("ps", "--format", "json").json == []
