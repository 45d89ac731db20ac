"""Real QEMUs go through real SEV and SEV-ES launches, and libvirt's validator judges the measurement."""

from __future__ import annotations

import base64
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import needs
from tests.conftest import HOSTS, PROFILES, VERSIONS, Command, qemu_binary_of, wait_until
from tests.rehearsal.owner import Session, make_session, rehearsed, validate

POLICIES = {"sev": 0x33, "sev-es": 0x37}
# EPYC-v3 and EPYC-v4 have family 23, model 1, stepping 2.
EPYC = ("--cpu-family", "23", "--cpu-model", "1", "--cpu-stepping", "2")


@pytest.fixture(autouse=True)
def _kvm() -> None:
    needs.rehearsal()


def claims(evidence: dict[str, Any], session: Session) -> list[str]:
    """The validator's arguments for what the evidence says."""
    sev = evidence["sev"]
    arguments = ["--measurement", evidence["measurement"], "--tik", str(session.tik), "--tek", str(session.tek)]
    for key in ("api_major", "api_minor", "build_id", "policy"):
        arguments += [f"--{key.replace('_', '-')}", str(sev[key])]
    arguments += ["--firmware", evidence["firmware"]["path"]]
    if sev["type"] == "sev-es":
        arguments += ["--num-cpus", str(evidence["vcpus"]), *EPYC]
    return arguments


@pytest.mark.parametrize("vcpus", [1, 4])
@pytest.mark.parametrize("kind", ["sev", "sev-es"])
@pytest.mark.parametrize("version", VERSIONS)
def test_libvirts_validator_accepts_the_measurement(version: str, kind: str, vcpus: int, sevlaunch: Command) -> None:
    session = make_session(sevlaunch, POLICIES[kind])
    evidence = rehearsed(sevlaunch, kind, version, session, vcpus=vcpus)
    assert (evidence["state"], evidence["rehearsal"]) == ("paused", True)
    assert (evidence["sev"]["state"], evidence["sev"]["policy"]) == ("launch-secret", POLICIES[kind])
    accepted = validate(claims(evidence, session))
    assert accepted.returncode == 0, accepted.stderr

    resumed = sevlaunch("resume", kind, "--format", "json").json
    assert resumed["sev"]["state"] == "running"
    sevlaunch("down", kind, "--now")
    assert sevlaunch.left_behind() == []


@pytest.mark.parametrize("kind", ["sev", "sev-es"])
def test_it_accepts_kernel_hashes_and_rejects_whatever_is_changed(kind: str, sevlaunch: Command, base: Path) -> None:
    kernel = needs.demo_guest() / "vmlinuz"
    session = make_session(sevlaunch, POLICIES[kind])
    initrd = base / "initrd"
    initrd.write_bytes(b"initrd" * 1000)
    evidence = rehearsed(
        sevlaunch,
        kind,
        "10.0",
        session,
        "--set",
        "security.kernel_hashes=true",
        "--set",
        f"boot={{kernel: {kernel}, initrd: {initrd}, cmdline: console=ttyS0}}",
        vcpus=2,
    )
    hashes = ["--kernel", str(kernel), "--initrd", str(initrd), "--cmdline", "console=ttyS0"]
    honest = [*claims(evidence, session), *hashes]
    accepted = validate(honest)
    assert accepted.returncode == 0, accepted.stderr

    firmware = base / "other.fd"
    content = bytearray(needs.amdsev_image().read_bytes())
    content[0] ^= 1
    firmware.write_bytes(content)
    other_tik = base / "other-tik.bin"
    other_tik.write_bytes(bytes(16))
    changes = {
        evidence["firmware"]["path"]: str(firmware),
        "console=ttyS0": "console=ttyS1",
        str(POLICIES[kind]): str(POLICIES[kind] ^ 1),
        str(session.tik): str(other_tik),
    }
    for before, after in changes.items():
        index = len(honest) - 1 - honest[::-1].index(before)
        rejected = validate([*honest[:index], after, *honest[index + 1 :]])
        assert rejected.returncode == 1, (before, rejected.stderr)
    sevlaunch("down", kind, "--now")


def test_status_evidence_and_ps_all_say_that_it_is_a_rehearsal(sevlaunch: Command) -> None:
    rehearsed(sevlaunch, "sev", "7.2", make_session(sevlaunch, 0x33))
    assert "REHEARSAL: memory is NOT encrypted" in sevlaunch("status", "sev").stdout
    assert "(rehearsal)" in sevlaunch("ps").stdout
    assert sevlaunch("evidence", "sev").json["rehearsal"] is True
    sevlaunch("down", "sev", "--now")


@pytest.mark.parametrize(
    ("policy", "session_policy", "code", "cause"),
    [
        ("0x33", 0x31, "BAD_MEASUREMENT (11)", "the session is for another platform or policy"),
        ("[no-debug, api-9.0]", 0x09000001, "POLICY_FAILURE (7)", "asks for a newer firmware"),
    ],
)
@pytest.mark.parametrize("version", VERSIONS)
def test_a_refusal_of_the_processor_is_decoded(
    version: str, policy: str, session_policy: int, code: str, cause: str, sevlaunch: Command
) -> None:
    session = make_session(sevlaunch, session_policy)
    result = sevlaunch(
        "up",
        PROFILES / "sev.yaml",
        "--rehearse",
        "--set",
        f"security.policy={policy}",
        "--set",
        f"qemu.binary={qemu_binary_of(version)}",
        *session.overrides,
        check=5,
    )
    assert code in result.stderr
    assert cause in result.stderr
    assert sevlaunch.left_behind() == []


def test_a_certificate_in_place_of_a_session_is_an_error_of_the_profile(sevlaunch: Command) -> None:
    session = make_session(sevlaunch, 0x33)
    overrides = [part.replace("session.b64", "godh.b64") for part in session.overrides]
    result = sevlaunch("up", PROFILES / "sev.yaml", "--rehearse", *overrides, check=3)
    wanted = "wanted the owner's session of 128 bytes, raw, in hexadecimal or base64, found base64 of 2084 bytes"
    assert wanted in result.stderr


def test_only_cbitpos_and_sev_device_differ_from_the_real_command_line(sevlaunch: Command) -> None:
    host = HOSTS / "milan-qemu-10.0.json"
    arguments = ["render", str(PROFILES / "sev-es.yaml"), "--host", str(host), "--format", "json"]
    real, rehearsal = sevlaunch(*arguments).json, sevlaunch(*arguments, "--rehearse").json
    different = [(one, other) for one, other in zip(real, rehearsal, strict=True) if one != other]
    ((one, other),) = different
    changed = set(other.split(",")) ^ set(one.split(","))
    assert {part.split("=")[0] for part in changed} <= {"cbitpos", "sev-device"}


@pytest.fixture
def running(sevlaunch: Command) -> Iterator[Command]:
    """A rehearsed guest, paused."""
    rehearsed(sevlaunch, "sev", "10.0", make_session(sevlaunch, 0x33))
    yield sevlaunch


def test_capabilities_and_a_report_are_answered_through_qmp(running: Command) -> None:
    capabilities = running("qmp", "sev", "query-sev-capabilities").json
    assert len(base64.b64decode(capabilities["pdh"])) == 2084
    assert len(base64.b64decode(capabilities["cert-chain"])) == 3 * 2084
    nonce = base64.b64encode(bytes(16)).decode()
    report = running("qmp", "sev", "query-sev-attestation-report", f'{{"mnonce": "{nonce}"}}').json
    assert len(base64.b64decode(report["data"])) == 208


def test_when_the_helper_dies_qemu_ends_and_status_shows_it(running: Command) -> None:
    qemu = running("status", "sev", "--format", "json").json["pid"]
    (helper,) = [pid for pid in running.programs() if pid != qemu]
    os.kill(helper, signal.SIGKILL)
    wait_until(lambda: running("status", "sev", "--format", "json").json["state"] == "exited", 30, "the end")
    running("down", "sev")
    assert running.left_behind() == []


def test_a_guest_without_encryption_has_nothing_to_rehearse(sevlaunch: Command) -> None:
    assert "no security to rehearse" in sevlaunch("up", PROFILES / "plain.yaml", "--rehearse", check=2).stderr
