"""Owner and host under rehearsal: session, launch, verification, secret, resume; and with one thing changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from sevlaunch.sevapi.ovmf import SECRET_AREA, table_of
from tests import needs
from tests.conftest import PROFILES, Command, qemu_binary_of, wait_until
from tests.guest.support import finish, listed
from tests.rehearsal.owner import share_platform

PASSPHRASE = b"correct horse battery staple"
POLICIES = {"sev": "0x33", "sev-es": "0x37"}
Options = list[str]


@pytest.fixture(autouse=True)
def _kvm(sevlaunch: Command) -> None:
    needs.rehearsal()
    share_platform(sevlaunch)


def options(*values: str) -> Options:
    """``--set`` for each value."""
    return [part for value in values for part in ("--set", value)]


def make_session(command: Command, policy: str, prefix: str = "vm", *, vouched: bool = True) -> Options:
    """The owner makes a session from the host's certificates; what the host's profile needs for it."""
    base = command.base
    if not (base / "pdh").exists():
        command("host", "--pdh", base / "pdh", "--rehearse")
    chain = ("--chain", base / "pdh.chain", "--ca", base / "pdh.ask", "--root", base / "pdh.ark") if vouched else ()
    made = command(
        "owner", "session", "--pdh", base / "pdh", *chain, "--policy", policy, "--insecure", "--out", base / prefix
    )
    assert "no" not in [line.split()[1] for line in made.stdout.splitlines()[1:8]]
    files = (f"security.dh_cert={base}/{prefix}_godh.b64", f"security.session={base}/{prefix}_session.b64")
    return options(f"security.policy={policy}", *files)


def host_side(version: str, vcpus: int = 2) -> Options:
    """What the host sets in the profile."""
    return options(f"qemu.binary={qemu_binary_of(version)}", f"firmware.image={needs.amdsev_image()}", f"cpus={vcpus}")


def keys(command: Command, prefix: str = "vm") -> Options:
    """The owner's keys, for ``up --verify``."""
    return ["--tik", f"{command.base}/{prefix}_tik.bin", "--tek", f"{command.base}/{prefix}_tek.bin"]


@pytest.mark.parametrize("kind", ["sev", "sev-es"])
@pytest.mark.parametrize("version", ["7.2", "10.0"])
def test_session_launch_verify_secret_resume(version: str, kind: str, sevlaunch: Command) -> None:
    base, profile = sevlaunch.base, PROFILES / f"{kind}.yaml"
    session = make_session(sevlaunch, POLICIES[kind])
    evidence = base / "evidence.json"
    sevlaunch("up", profile, "--rehearse", "--paused", "--evidence", evidence, *host_side(version), *session)

    # The owner, on another machine, with the profile's contents alone.
    known = ["--profile", str(profile), "--firmware", str(needs.amdsev_image()), "--policy", POLICIES[kind]]
    known += ["--tik", str(base / "vm_tik.bin"), "--rehearsal"]
    assert "REHEARSAL: memory is NOT encrypted" in sevlaunch("owner", "verify", evidence, *known, "--insecure").stdout
    secret = base / "passphrase"
    secret.write_bytes(PASSPHRASE)
    packet = ["--header", str(base / "header"), "--payload", str(base / "payload")]
    wrap = ["--evidence", str(evidence), *keys(sevlaunch), "--secret", f"luks:{secret}", *packet]
    sevlaunch("owner", "secret", *wrap, "--rehearsal")

    sevlaunch("inject", kind, *packet)
    assert PASSPHRASE in secret_area(sevlaunch, kind)
    assert sevlaunch("resume", kind, "--format", "json").json["sev"]["state"] == "running"
    sevlaunch("down", kind, "--now")


def secret_area(command: Command, name: str) -> bytes:
    """The guest's memory where the firmware's table says that secrets go."""
    data = table_of(needs.amdsev_image().read_bytes())[SECRET_AREA]
    address, size = (int.from_bytes(data[at : at + 4], "little") for at in (0, 4))
    file = command.base / "memory"
    command("qmp", name, "pmemsave", json.dumps({"val": address, "size": size, "filename": str(file)}))
    return file.read_bytes()


@pytest.mark.parametrize("vouched", [True, False])
def test_a_rehearsal_that_says_that_it_is_none_is_refused(vouched: bool, sevlaunch: Command) -> None:
    base, profile = sevlaunch.base, PROFILES / "sev.yaml"
    session = make_session(sevlaunch, "0x33", vouched=vouched)
    evidence, flipped = base / "evidence.json", base / "flipped.json"
    sevlaunch("up", profile, "--rehearse", "--paused", "--evidence", evidence, *host_side("10.0"), *session)
    sevlaunch("down", "sev", "--now")
    flipped.write_text(json.dumps({**json.loads(evidence.read_text()), "rehearsal": False}))
    words: Options = ["--profile", str(profile), "--firmware", str(needs.amdsev_image()), "--policy", "0x33"]
    words += ["--tik", f"{base}/vm_tik.bin", "--secret", f"luks:{flipped}"]
    for more in ([], ["--rehearsal"], ["--insecure"], ["--rehearsal", "--insecure"]):
        refused = sevlaunch("owner", "verify", flipped, *words, *more, check=9)
        assert "may run on an emulated processor, whatever its evidence says" in refused.stderr
        assert refused.stdout == ""
    assert not (base / "vm_header.b64").exists()
    named = sevlaunch("owner", "verify", flipped, *words, "--root", base / "pdh.ark", check=0 if vouched else 9)
    assert ("vouched for by the root that was given" in named.stdout) == vouched


@pytest.mark.parametrize("kind", ["sev", "sev-es"])
@pytest.mark.parametrize("version", ["7.2", "10.0"])
def test_one_command_does_it_all(version: str, kind: str, sevlaunch: Command) -> None:
    session = make_session(sevlaunch, POLICIES[kind])
    secret = sevlaunch.base / "passphrase"
    secret.write_bytes(PASSPHRASE)
    verification = ["--verify", *keys(sevlaunch), "--secret", f"luks:{secret}"]
    profile = PROFILES / f"{kind}.yaml"
    result = sevlaunch("up", profile, "--rehearse", *host_side(version), *session, *verification, "--format", "json")
    assert result.json["sev"]["state"] == "running"
    assert "this is a test, not a proof" in result.stderr
    assert PASSPHRASE in secret_area(sevlaunch, kind)
    sevlaunch("down", kind, "--now")


def test_a_guest_in_the_foreground_is_verified_and_gets_its_secret(sevlaunch: Command) -> None:
    session = make_session(sevlaunch, POLICIES["sev"])
    secret = sevlaunch.base / "passphrase"
    secret.write_bytes(PASSPHRASE)
    # The machine's KVM may be one that can't run firmware code: QEMU then stops the guest at its first instruction.
    staying = ("--foreground", "--set", "on_crash=keep")
    words = ["up", str(PROFILES / "sev.yaml"), "--rehearse", *staying, *host_side("10.0"), *session]
    process = sevlaunch.start(*words, "--verify", *keys(sevlaunch), "--secret", f"luks:{secret}")
    wait_until(lambda: listed(sevlaunch).get("sev") in ("running", "internal-error"), 60, "the guest")
    assert PASSPHRASE in secret_area(sevlaunch, "sev")
    sevlaunch("down", "sev", "--now")
    result = finish(process)
    assert result.code == 0
    assert "this is a test, not a proof" in result.stderr
    refused = sevlaunch(*words, "--verify", *other_key(sevlaunch), check=1)
    assert "sev is not what the plan says, and was ended" in refused.stderr
    assert sevlaunch.left_behind() == []


def other_key(command: Command) -> Options:
    make_session(command, "0x33", "other")
    return ["--tik", f"{command.base}/other_tik.bin"]


def other_firmware(command: Command) -> Options:
    content = bytearray(needs.amdsev_image().read_bytes())
    content[100] ^= 1
    (command.base / "other.fd").write_bytes(content)
    return ["--firmware", f"{command.base}/other.fd"]


def other_policy(command: Command) -> Options:
    return ["--policy", "0x31"]


def newer_api(command: Command) -> Options:
    return ["--min-api", "9.0"]


@pytest.mark.parametrize(
    ("change", "wrong"),
    [(other_key, "measurement"), (other_firmware, "firmware"), (other_policy, "policy"), (newer_api, "api version")],
)
def test_one_thing_changed_is_a_no_with_its_reason(
    change: Callable[[Command], Options], wrong: str, sevlaunch: Command
) -> None:
    base, profile = sevlaunch.base, PROFILES / "sev.yaml"
    session = make_session(sevlaunch, "0x33")
    evidence = base / "evidence.json"
    sevlaunch("up", profile, "--rehearse", "--paused", "--evidence", evidence, *host_side("10.0"), *session)
    known: dict[str, Any] = {"--firmware": needs.amdsev_image(), "--policy": "0x33", "--tik": base / "vm_tik.bin"}
    name, value = change(sevlaunch)
    known[name] = value
    arguments = [str(part) for pair in known.items() for part in pair]
    result = sevlaunch(
        "owner", "verify", evidence, "--profile", profile, *arguments, "--rehearsal", "--insecure", check=1
    )
    (line,) = [line for line in result.stdout.splitlines() if line.startswith(wrong)]
    assert " ok " not in line
    sevlaunch("down", "sev", "--now")


def test_a_launch_that_fails_its_verification_is_ended(sevlaunch: Command) -> None:
    session = make_session(sevlaunch, "0x33")
    result = sevlaunch(
        "up",
        PROFILES / "sev.yaml",
        "--rehearse",
        "--verify",
        *other_key(sevlaunch),
        *host_side("10.0"),
        *session,
        check=1,
    )
    assert "sev is not what the plan says, and was ended" in result.stderr
    assert sevlaunch.left_behind() == []


@pytest.mark.parametrize(
    ("profile", "arguments", "told"),
    [
        ("sev-snp", ["--verify", "--tik", "/x"], "--tik, --tek and --secret go with SEV and SEV-ES launches"),
        ("sev", ["--verify"], "--verify needs --tik"),
        ("sev", ["--tik", "/x"], "--tik, --tek and --secret go with --verify"),
        ("sev", ["--verify", "--paused", "--tik", "/x"], "--verify lets the guest run, or ends it"),
    ],
)
def test_what_verification_needs(profile: str, arguments: list[str], told: str, sevlaunch: Command) -> None:
    side = host_side("10.0")
    assert told in sevlaunch("up", PROFILES / f"{profile}.yaml", "--rehearse", *arguments, *side, check=2).stderr


@pytest.mark.parametrize("version", ["10.0", "11.1"])
def test_an_snp_guest_has_a_report_that_the_owner_checks(version: str, sevlaunch: Command) -> None:
    profile, evidence = PROFILES / "sev-snp.yaml", sevlaunch.base / "evidence.json"
    sevlaunch("up", profile, "--rehearse", "--evidence", evidence, *host_side(version))
    wanted = sevlaunch("owner", "digest", profile, "--firmware", needs.amdsev_image(), "--format", "json").json
    digest = wanted["digests"][0]["hex"]
    checks = ["--rehearsal", "--policy", "0x30000", "--any-report-data"]
    result = sevlaunch("owner", "report", evidence, "--digest", digest, *checks)
    assert "REHEARSAL" in result.stdout
    wrong = sevlaunch("owner", "report", evidence, "--digest", "00" * 48, *checks, "--format", "json", check=1).json
    assert [check["name"] for check in wrong["checks"] if check["ok"] is False] == ["measurement"]
    assert sevlaunch("owner", "report", evidence, "--digest", digest, "--policy", "0x30000", check=9).stderr
    sevlaunch("down", "sev-snp", "--now")
