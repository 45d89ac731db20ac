"""A QEMU that does not speak as it should ends in the documented exit code, a clear message, and nothing left."""

from __future__ import annotations

import json
import socket

import pytest
from msgspec.structs import replace

from sevlaunch.errors import QemuError, QmpError
from sevlaunch.evidence import Evidence, SevInfo
from sevlaunch.guest.evidence import check_encryption, read_sev_info
from sevlaunch.guest.monitor import session
from sevlaunch.guest_type import GuestType
from tests.conftest import Command
from tests.guest.fake_qemu import GREETING
from tests.guest.support import PLAIN, fake_qemu, listed, no_traceback

SEV = SevInfo(GuestType.SEV, True, "launch-secret", 0x33, 1, 55, 24, 1)
EVIDENCE = Evidence(
    name="g",
    state="paused",
    pid=1,
    profile="g.yaml",
    command=[],
    rehearsal=False,
    qemu=None,
    firmware=None,
    vcpus=1,
    sev=SEV,
    measurement="AAAA",
)


@pytest.mark.parametrize(
    ("scenario", "message"),
    [
        ("garbage", "can't talk QMP to QEMU"),
        ("not_a_greeting", "can't talk QMP to QEMU"),
        ("huge_line", "can't talk QMP to QEMU"),
        ("hang_up_and_live", "can't talk QMP to QEMU"),
        ("negotiation_error", "can't talk QMP to QEMU"),
        ("hang_up_mid_answer", "QEMU ended with exit code 1 while plain was being started"),
        ("sev_error", "QEMU refuses query-sev: the firmware is on fire"),
        ("refuses_cont", "QEMU refuses cont: Resetting the VM is required"),
        ("nested", "lost QEMU during query-status"),
        ("not_utf_8", "lost QEMU during query-status"),
        ("wrong_shape", "query-status"),
        ("wrong_sev_shape", "query-sev"),
    ],
)
def test_what_is_no_proper_qmp_is_a_failure_of_qemu(scenario: str, message: str, sevlaunch: Command) -> None:
    result = sevlaunch("up", PLAIN, "--timeout", "100", *fake_qemu(sevlaunch, scenario), check=5)
    no_traceback(result)
    assert message in result.stderr
    # One message for people, and nothing that a library logged beside it.
    assert result.stderr.startswith("sevlaunch: ")
    assert all(line.startswith(("  qemu: ", "hint: ")) for line in result.stderr.splitlines()[1:])
    assert sevlaunch.left_behind() == []


@pytest.mark.parametrize("scenario", ["silent", "half_greeting", "half_answer", "endless_events"])
def test_what_never_comes_is_a_timeout(scenario: str, sevlaunch: Command) -> None:
    result = sevlaunch("up", PLAIN, "--timeout", "1.5", *fake_qemu(sevlaunch, scenario), check=6, limit=60)
    no_traceback(result)
    assert "plain was not ready within 1.5 s" in result.stderr
    assert "--timeout" in result.stderr
    assert sevlaunch.left_behind() == []


def test_a_timeout_shows_what_qemu_printed(sevlaunch: Command) -> None:
    result = sevlaunch("up", PLAIN, "--timeout", "1.5", *fake_qemu(sevlaunch, "last_words_and_silence"), check=6)
    assert "  qemu: fake: waiting for the moon\n" in result.stderr


def test_a_failure_of_qmp_shows_what_qemu_printed(sevlaunch: Command) -> None:
    result = sevlaunch("up", PLAIN, *fake_qemu(sevlaunch, "last_words_and_garbage"), check=5)
    assert "  qemu: fake: Could not set up host forwarding rule 'tcp::1-:2'\n" in result.stderr
    assert "hint: the host port is in use" in result.stderr


def test_the_fake_is_good_enough_to_pass(sevlaunch: Command) -> None:
    sevlaunch("up", PLAIN, "--paused", *fake_qemu(sevlaunch, "polite"))
    # It has no monitor for other commands.
    assert listed(sevlaunch) == {"plain": "unresponsive"}
    assert sevlaunch("down", "plain", "--now").stdout == "plain: terminated\n"
    assert sevlaunch.left_behind() == []


async def test_a_qemu_that_is_gone_after_its_last_word_of_the_negotiation_is_a_failure_of_qemu() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(json.dumps(GREETING).encode() + b'\n{"return": {}}\n')
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(QmpError, match="can't talk QMP to QEMU: it hung up"):
            async with session(ours):
                pytest.fail("there is no session")


def test_a_guest_that_is_to_be_encrypted_and_is_not_is_refused() -> None:
    evidence = replace(EVIDENCE, sev=read_sev_info(GuestType.SEV, {"enabled": False}))
    with pytest.raises(QemuError, match="was to be a sev guest, and QEMU says that SEV is not enabled"):
        check_encryption(evidence, 0x33)


@pytest.mark.parametrize("answer", [None, {}, {"enabled": False}])
def test_no_sev_is_no_sev_however_it_is_said(answer: dict[str, bool] | None) -> None:
    assert not read_sev_info(GuestType.SEV_ES, answer).enabled


@pytest.mark.parametrize("policy", [0x32, 0, 0x37])
def test_another_policy_than_the_plans_is_refused(policy: int) -> None:
    with pytest.raises(QemuError, match=f"was to have policy 0x33, and QEMU reports {policy:#x}"):
        check_encryption(replace(EVIDENCE, sev=replace(SEV, policy=policy)), 0x33)


def test_a_policy_that_is_not_said_is_refused() -> None:
    with pytest.raises(QemuError, match="was to have policy 0x33"):
        check_encryption(replace(EVIDENCE, sev=replace(SEV, policy=None)), 0x33)


def test_the_plans_policy_passes_and_an_ordinary_guest_is_not_checked() -> None:
    check_encryption(EVIDENCE, 0x33)
    check_encryption(replace(EVIDENCE, sev=read_sev_info(GuestType.NONE, None)), None)
