"""`owner publish`: what a trustee is told of a launch, in which order, and what becomes of its errors."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Command
from tests.owner.kbs_stand_in import TOKEN, Kbs, kbs_running
from tests.owner.test_reference_values import PLATFORM, claims, profile
from tests.owner.verifiers import AFFIRMING, DEFAULT_POLICY, trust_claims

__all__ = ["profile"]

AFFIRMED_ONLY = "package policy\n\nimport rego.v1\n\ndefault allow := false\n"


@pytest.fixture
def kbs() -> Iterator[Kbs]:
    """A KBS on loopback."""
    with kbs_running() as running:
        yield running


@pytest.fixture
def given(kbs: Kbs, profile: Path, base: Path) -> list[str | Path]:
    """The command, with the token and the profile's launch."""
    token = base / "token"
    token.write_text(f"{TOKEN}\n")
    token.chmod(0o600)
    return ["owner", "publish", profile, *PLATFORM, "--kbs", kbs.url, "--admin-token", token]


def test_the_values_are_registered(given: list[str | Path], kbs: Kbs, sevlaunch: Command) -> None:
    result = sevlaunch(*given)
    assert result.stdout == f"reference values: taken by {kbs.url}\n"
    assert kbs.asked == ["reference-value"]
    assert trust_claims(DEFAULT_POLICY, claims(), kbs.values) == AFFIRMING
    sevlaunch(*given, "--name", "rvps:///github.com/OWNER/image:v1")
    assert kbs.values["rvps:///github.com/OWNER/image/snp_smt_enabled:v1"] is True


def test_all_of_it_in_the_order_in_which_it_guards(
    given: list[str | Path], kbs: Kbs, base: Path, sevlaunch: Command
) -> None:
    (base / "resource.rego").write_text(AFFIRMED_ONLY)
    (base / "own.rego").write_text(DEFAULT_POLICY)
    (base / "key").write_bytes(bytes(range(256)))
    more: list[str | Path] = ["--resource-policy", base / "resource.rego", "--attestation-policy", base / "own.rego"]
    resources: list[str | Path] = [
        "--resource",
        f"default/key/1={base / 'key'}",
        "--resource",
        f"default/key/2={base / 'token'}",
    ]
    document = sevlaunch(*given, *more, *resources, "--format", "json").json
    paths = [
        "reference-value",
        "attestation-policy",
        "resource-policy",
        "resource/default/key/1",
        "resource/default/key/2",
    ]
    assert kbs.asked == paths
    assert document["complete"] is True
    assert len(document["published"]) == len(paths)
    assert kbs.attestation_policies == {"default_cpu": DEFAULT_POLICY}
    assert kbs.resource_policy == AFFIRMED_ONLY
    assert kbs.resources["default/key/1"] == bytes(range(256))


def test_its_own_policy_is_in_place_of_the_values(given: list[str | Path], kbs: Kbs, sevlaunch: Command) -> None:
    sevlaunch(*given, "--attestation-policy", "own")
    assert kbs.asked == ["attestation-policy"]
    assert trust_claims(kbs.attestation_policies["default_cpu"], claims()) == AFFIRMING


def test_what_it_refuses_ends_it(given: list[str | Path], kbs: Kbs, base: Path, sevlaunch: Command) -> None:
    (base / "no.rego").write_text("package other\n")
    more: list[str | Path] = ["--resource-policy", base / "no.rego", "--resource", f"default/key/1={base / 'token'}"]
    result = sevlaunch(*given, *more, check=4)
    assert result.stdout == f"reference values: taken by {kbs.url}\n"
    assert "the resource policy: " in result.stderr
    assert "answers 401: ParsePolicyError: Failed to parse policy" in result.stderr
    assert "fix what it names" in result.stderr
    assert kbs.resources == {}
    document = sevlaunch(*given, *more, "--format", "json", check=4)
    assert '"complete": false' in document.stdout


def test_a_token_is_asked_for_and_never_shown(
    given: list[str | Path], kbs: Kbs, base: Path, sevlaunch: Command
) -> None:
    result = sevlaunch(*given[:-2], check=4)
    assert "AdminAuthAccess: admin access denied" in result.stderr
    assert "--admin-token FILE" in result.stderr
    other = base / "other"
    other.write_text(TOKEN[:-1])
    other.chmod(0o600)
    result = sevlaunch(*given[:-1], other, check=4)
    assert "not expired" in result.stderr
    assert TOKEN[:-1] not in result.stdout + result.stderr
    (base / "token").chmod(0o644)
    assert "others may read" in sevlaunch(*given, check=2).stderr
    for content in (b"two words", b"a\nb", b"\xff"):
        other.write_bytes(content)
        assert "one word" in sevlaunch(*given[:-1], other, check=2).stderr
    assert kbs.values == {}


def test_errors_that_are_none_of_a_kbs(given: list[str | Path], kbs: Kbs, sevlaunch: Command, base: Path) -> None:
    kbs.garbage = True
    result = sevlaunch(*given[:-2], check=4)
    assert "answers 401" in result.stderr
    assert "\x1b" not in result.stderr
    given[given.index(kbs.url)] = f"{kbs.url}/elsewhere"
    assert "answers 404" in sevlaunch(*given, check=4).stderr
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}"
    given[given.index(f"{kbs.url}/elsewhere")] = nobody
    assert "no answer from" in sevlaunch(*given, check=4).stderr


def test_nobody_else_gets_the_token(given: list[str | Path], kbs: Kbs, sevlaunch: Command) -> None:
    with kbs_running() as other:
        kbs.redirects_to = other.url
        assert "answers 307" in sevlaunch(*given, check=4).stderr
        assert other.asked == []


def test_a_connection_that_anybody_can_read_is_refused(given: list[str | Path], kbs: Kbs, sevlaunch: Command) -> None:
    place = given.index(kbs.url)
    given[place] = "http://kbs.invalid:8080"
    assert "not encrypted" in sevlaunch(*given, check=9).stderr
    assert "no answer from" in sevlaunch(*given, "--insecure", check=4).stderr
    given[place] = "kbs.invalid"
    assert "wanted the URL" in sevlaunch(*given, check=2).stderr
    assert kbs.asked == []


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--resource", "default/key"], "wanted REPO/TYPE/TAG=FILE"),
        (["--resource", f"key={__file__}"], "wanted a resource's name"),
        (["--resource", "default/key/1=missing"], "can't read missing"),
        (["--resource", f"../key/1={__file__}"], "wanted a resource's name"),
        (["--resource", f"default/key/..={__file__}"], "wanted a resource's name"),
        (["--expires", "2027-06-01"], "--expires has no place"),
        (["--ca", "missing.pem"], "can't be read"),
        (["--resource-policy", "missing.rego"], "can't read missing.rego"),
    ],
)
def test_what_is_no_publication_is_refused(
    words: list[str], reason: str, given: list[str | Path], kbs: Kbs, sevlaunch: Command
) -> None:
    assert reason in sevlaunch(*given, *words, check=2).stderr
    assert kbs.asked == []
