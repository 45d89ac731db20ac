"""A guest's life on each QEMU: up, status, ps, qmp, resume, down, and what is on disk meanwhile."""

from __future__ import annotations

import json
import os
import signal
import stat

import pytest

from tests.conftest import Command, wait_until
from tests.guest.support import (
    JSON,
    PLAIN,
    ended,
    fake_log,
    fake_qemu,
    finish,
    listed,
    no_traceback,
    qemu_processes,
    some_qemu,
    status_of,
    with_qemu,
)
from tests.guest.tiny_firmware import POWERS_OFF, options_for

# DESIGN.md, Commands.
FIELDS = {
    "name": str,
    "state": str,
    "pid": int,
    "profile": str,
    "command": list,
    "rehearsal": bool,
    "qemu": dict,
    "firmware": dict,
    "vcpus": int,
    "sev": dict,
    "measurement": type(None),
    "ssh": type(None),
    "ended": type(None),
}
NO_SEV = {
    "type": "none",
    "enabled": False,
    "state": None,
    "policy": None,
    "api_major": None,
    "api_minor": None,
    "build_id": None,
    "handle": None,
}


def test_up_status_and_evidence_have_the_fields_of_the_design(qemu_binary: str, sevlaunch: Command) -> None:
    up = sevlaunch("up", PLAIN, "--paused", *JSON, *with_qemu(qemu_binary)).json
    status = status_of(sevlaunch, "plain")
    evidence = sevlaunch("evidence", "plain").json
    for document in (up, status, evidence):
        assert {name: type(value) for name, value in document.items()} == FIELDS
        assert set(document["qemu"]) == {"binary", "version"}
        assert set(document["firmware"]) == {"path", "sha256"}
        assert document["sev"] == NO_SEV
    assert up == status == evidence
    assert up["name"] == "plain"
    assert up["state"] == "paused"
    assert [up["pid"]] == qemu_processes(sevlaunch)
    assert up["profile"] == str(PLAIN)
    assert up["qemu"]["binary"] == up["command"][0] == qemu_binary
    assert f"qemu-{up['qemu']['version'].rpartition('.')[0]}/" in qemu_binary
    assert len(up["firmware"]["sha256"]) == 64
    assert up["vcpus"] == 2


def test_a_paused_guest_runs_once_it_is_resumed_and_ps_and_qmp_say_so(qemu_binary: str, sevlaunch: Command) -> None:
    sevlaunch("up", PLAIN, "--paused", *with_qemu(qemu_binary))
    assert listed(sevlaunch) == {"plain": "paused"}
    assert sevlaunch("qmp", "plain", "query-status").json["running"] is False
    assert sevlaunch("resume", "plain", *JSON).json["state"] == "running"
    assert listed(sevlaunch) == {"plain": "running"}
    assert sevlaunch("qmp", "plain", "query-status").json["running"] is True
    # What the launch showed stays as it was.
    assert sevlaunch("evidence", "plain").json["state"] == "paused"
    sevlaunch("qmp", "plain", "stop")
    assert status_of(sevlaunch, "plain")["state"] == "paused"


def test_up_without_paused_runs_the_guest(qemu_binary: str, sevlaunch: Command) -> None:
    up = sevlaunch("up", PLAIN, *JSON, *with_qemu(qemu_binary)).json
    assert up["state"] == "running"
    assert sevlaunch("evidence", "plain").json == up


def test_qmp_passes_arguments_values_and_errors_on(qemu_binary: str, sevlaunch: Command) -> None:
    sevlaunch("up", PLAIN, "--paused", *with_qemu(qemu_binary))
    types = sevlaunch("qmp", "plain", "qom-list-types", '{"implements": "rng-backend"}').json
    assert "rng-random" in {entry["name"] for entry in types}
    assert sevlaunch("qmp", "plain", "cont").json == {}
    refused = sevlaunch("qmp", "plain", "no-such-command", check=5)
    assert "no-such-command has not been found" in refused.stderr
    assert refused.stdout == ""
    wrong = sevlaunch("qmp", "plain", "device_del", '{"id": "nobody"}', check=5)
    assert "QEMU refuses device_del: Device 'nobody' not found" in wrong.stderr
    error = json.loads(sevlaunch("qmp", "plain", "no-such-command", *JSON, check=5).stderr)["error"]
    assert (error["kind"], error["exit_code"]) == ("QmpError", 5)


@pytest.mark.parametrize("arguments", ["{", "[1]", "1", '"text"', "null,"])
def test_arguments_that_are_no_json_object_are_wrong_usage(arguments: str, sevlaunch: Command) -> None:
    result = sevlaunch("qmp", "plain", "query-status", arguments, check=2)
    assert f"wanted a JSON object, found {arguments!r}" in json.loads(result.stderr)["error"]["message"]


def test_a_paused_guest_is_quit_without_being_asked(qemu_binary: str, sevlaunch: Command) -> None:
    sevlaunch("up", PLAIN, "--paused", *with_qemu(qemu_binary))
    assert sevlaunch("down", "plain", *JSON).json == [{"name": "plain", "how": "quit"}]
    assert sevlaunch.left_behind() == []


def test_a_guest_that_does_not_hear_the_power_button_is_quit_after_the_timeout(
    qemu_binary: str, sevlaunch: Command
) -> None:
    sevlaunch("up", PLAIN, *with_qemu(qemu_binary))
    assert sevlaunch("down", "plain", "--timeout", "0.5").stdout == "plain: quit\n"
    assert sevlaunch.left_behind() == []


def test_down_now_quits_a_running_guest_at_once(qemu_binary: str, sevlaunch: Command) -> None:
    sevlaunch("up", PLAIN, *with_qemu(qemu_binary))
    assert sevlaunch("down", "plain", "--now", *JSON).json == [{"name": "plain", "how": "quit"}]
    assert sevlaunch.left_behind() == []


def test_a_qemu_that_is_stuck_is_killed_and_seen_as_unresponsive_before(sevlaunch: Command) -> None:
    pid = sevlaunch("up", PLAIN, *JSON, *some_qemu()).json["pid"]
    os.kill(pid, signal.SIGSTOP)
    assert status_of(sevlaunch, "plain")["state"] == "unresponsive"
    assert sevlaunch("down", "plain", "--now", *JSON).json == [{"name": "plain", "how": "killed"}]
    assert sevlaunch.left_behind() == []


def test_down_of_a_guest_that_ended_by_itself_clears_it_away(qemu_binary: str, sevlaunch: Command) -> None:
    pid = sevlaunch("up", PLAIN, *JSON, *with_qemu(qemu_binary)).json["pid"]
    sevlaunch("qmp", "plain", "quit")
    wait_until(lambda: ended(pid), 30, "the end of QEMU")
    status = status_of(sevlaunch, "plain")
    assert (status["state"], status["pid"]) == ("exited", None)
    assert status["ended"] == {"how": "exited", "exit_code": None, "reason": None}
    for command in (("resume", "plain"), ("qmp", "plain", "query-status")):
        assert "does not run any more" in sevlaunch(*command, check=1).stderr
    assert sevlaunch("down", "plain").stdout == "plain: had ended already\n"
    assert sevlaunch.left_behind() == []


def test_down_takes_several_guests_and_all(sevlaunch: Command) -> None:
    for name in "abcd":
        sevlaunch("up", PLAIN, "--paused", "--name", name, *some_qemu())
    assert sevlaunch("down", "a", "c", *JSON).json == [{"name": "a", "how": "quit"}, {"name": "c", "how": "quit"}]
    assert listed(sevlaunch) == {"b": "paused", "d": "paused"}
    partly = sevlaunch("down", "b", "a", check=10)
    assert partly.stdout == "b: quit\n"
    assert "no guest 'a' is known" in partly.stderr
    assert sevlaunch("down", "--all").stdout == "d: quit\n"
    assert sevlaunch.left_behind() == []
    assert sevlaunch("down", "--all").stdout == ""
    sevlaunch("down", check=2)


def test_an_unknown_guest_is_said_with_the_names_there_are(sevlaunch: Command) -> None:
    commands = [("status", "x"), ("evidence", "x"), ("logs", "x"), ("console", "x"), ("resume", "x"), ("down", "x")]
    for command in [*commands, ("qmp", "x", "stop")]:
        result = sevlaunch(*command, check=10)
        assert "no guest 'x' is known" in result.stderr
        assert "no guest is there; start one with: sevlaunch up PROFILE" in result.stderr
    sevlaunch("up", PLAIN, "--paused", "--name", "one", *some_qemu())
    sevlaunch("up", PLAIN, "--paused", "--name", "two", *some_qemu())
    for command in commands:
        assert "there are: one, two" in sevlaunch(*command, check=10).stderr
    for odd in ("", ".", "..", "../run", "one/", "/etc"):
        no_traceback(sevlaunch("status", odd, check=10))


def test_the_runtime_folder_is_for_this_user_alone(qemu_binary: str, sevlaunch: Command) -> None:
    sevlaunch("up", PLAIN, *with_qemu(qemu_binary))
    folder, inner = sevlaunch.runtime / "plain", sevlaunch.runtime / "plain/qemu"
    paths = [path for path in (*folder.iterdir(), *inner.iterdir()) if path != inner]
    modes = {str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode) for path in paths}
    assert set(modes) >= {"lock", "guest.json", "plan.json", "evidence.json", "qemu.log"}
    assert set(modes) >= {f"qemu/{name}" for name in ("commands.sock", "qmp.sock", "console.sock")}
    # A socket has the execute bits that QEMU leaves it: they mean nothing there.
    assert {name: oct(mode & 0o677) for name, mode in modes.items()} == dict.fromkeys(modes, oct(0o600))
    assert [oct(stat.S_IMODE(path.stat().st_mode)) for path in (inner, folder, sevlaunch.runtime)] == [oct(0o700)] * 3
    assert [path.name for path in folder.iterdir() if path.name.startswith(".new")] == []


def test_the_variable_store_is_copied_once_and_kept_over_two_runs(qemu_binary: str, sevlaunch: Command) -> None:
    sevlaunch("up", PLAIN, "--paused", *with_qemu(qemu_binary))
    (variables,) = (sevlaunch.state / "plain").glob("*/VARS.fd")
    assert stat.S_IMODE(variables.stat().st_mode) == 0o600
    names = sorted(path.name for path in variables.parent.iterdir())
    assert names == ["VARS.fd", "console.log", "console.times"]
    sevlaunch("down", "plain")
    with variables.open("r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        stream.write(b"K")
    before = variables.read_bytes()
    sevlaunch("up", PLAIN, "--paused", *with_qemu(qemu_binary))
    sevlaunch("down", "plain")
    assert variables.read_bytes() == before


def test_the_evidence_goes_to_a_file_too(sevlaunch: Command) -> None:
    file = sevlaunch.base / "evidence.json"
    up = sevlaunch("up", PLAIN, "--paused", "--evidence", file, *JSON, *some_qemu()).json
    assert json.loads(file.read_text()) == up
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_evidence_that_cant_be_written_takes_the_guest_back(sevlaunch: Command) -> None:
    result = sevlaunch("up", PLAIN, "--evidence", "/no/such/folder/evidence.json", *some_qemu(), check=4)
    assert "can't write /no/such/folder/evidence.json: No such file or directory" in result.stderr
    assert sevlaunch.left_behind() == []


def test_name_gives_the_guest_another_name_and_variable_store(sevlaunch: Command) -> None:
    up = sevlaunch("up", PLAIN, "--paused", "--name", "other", *JSON, *some_qemu()).json
    assert up["name"] == "other"
    assert "guest=other,debug-threads=on" in up["command"]
    assert len(list((sevlaunch.state / "other").glob("*/VARS.fd"))) == 1
    assert listed(sevlaunch) == {"other": "paused"}


def asked_of(command: Command) -> list[str]:
    """What the fake QEMU was asked to end by."""
    asked = fake_log(command).read_text().split()
    return [word for word in asked if word in ("system_powerdown", "quit", "SIGTERM")]


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda sent: sent.name)
def test_a_signal_takes_a_guest_in_the_foreground_down(
    sent: signal.Signals, qemu_binary: str, sevlaunch: Command
) -> None:
    options = options_for(sevlaunch.base, qemu_binary, POWERS_OFF)
    process = sevlaunch.start("up", PLAIN, "--foreground", *options)
    assert process.stdout and process.stdout.readline().startswith("plain is running")
    process.send_signal(sent)
    result = finish(process)
    assert result.code == 0, result
    assert "sevlaunch: plain is taken down\nsevlaunch: plain has ended (guest-shutdown)\n" in result.stderr
    assert sevlaunch.left_behind() == []


def test_a_guest_that_does_not_power_down_is_quit(qemu_binary: str, sevlaunch: Command) -> None:
    process = sevlaunch.start("up", PLAIN, "--foreground", "--down-timeout", "0.5", *with_qemu(qemu_binary))
    wait_until(lambda: listed(sevlaunch).get("plain") == "running", 30, "the guest")
    process.send_signal(signal.SIGTERM)
    result = finish(process)
    assert result.code == 0, result
    assert "plain has ended (host-qmp-quit)" in result.stderr
    assert sevlaunch.left_behind() == []


def test_a_second_signal_ends_a_guest_in_the_foreground_at_once(qemu_binary: str, sevlaunch: Command) -> None:
    # Without the second one it would be asked for longer than this test waits.
    process = sevlaunch.start("up", PLAIN, "--foreground", "--down-timeout", "600", *with_qemu(qemu_binary))
    wait_until(lambda: listed(sevlaunch).get("plain") == "running", 30, "the guest")
    process.send_signal(signal.SIGINT)
    assert process.stderr and process.stderr.readline() == "sevlaunch: plain is taken down\n"
    process.send_signal(signal.SIGINT)
    result = finish(process)
    assert (result.code, result.stderr) == (130, "sevlaunch: interrupted\n")
    assert sevlaunch.left_behind() == []


def test_a_qemu_that_a_signal_has_to_kill_is_no_failure(sevlaunch: Command) -> None:
    process = sevlaunch.start("up", PLAIN, "--foreground", "--down-timeout", "0", *fake_qemu(sevlaunch, "stubborn"))
    assert process.stdout and process.stdout.readline().startswith("plain is paused")
    process.send_signal(signal.SIGTERM)
    assert finish(process).code == 0
    assert asked_of(sevlaunch) == ["quit", "SIGTERM"]
    assert sevlaunch.left_behind() == []


def test_the_command_in_the_foreground_ends_with_the_guest(qemu_binary: str, sevlaunch: Command) -> None:
    process = sevlaunch.start("up", PLAIN, "--foreground", *with_qemu(qemu_binary))
    wait_until(lambda: listed(sevlaunch).get("plain") == "running", 30, "the guest")
    sevlaunch("qmp", "plain", "quit")
    result = finish(process)
    assert result.code == 0
    assert result.stdout.startswith("plain is running (pid ")
    assert "sevlaunch: plain has ended (host-qmp-quit)" in result.stderr
    assert sevlaunch.left_behind() == []


def test_down_takes_a_guest_in_the_foreground(sevlaunch: Command) -> None:
    process = sevlaunch.start("up", PLAIN, "--foreground", *some_qemu())
    wait_until(lambda: listed(sevlaunch).get("plain") == "running", 30, "the guest")
    assert sevlaunch("down", "plain", "--now").stdout == "plain: quit\n"
    assert finish(process).code == 0
    assert sevlaunch.left_behind() == []


def test_what_qemu_said_when_it_ended_is_in_the_status(sevlaunch: Command) -> None:
    pid = sevlaunch("up", PLAIN, "--paused", *JSON, *some_qemu()).json["pid"]
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: ended(pid), 30, "the end of QEMU")
    found = status_of(sevlaunch, "plain")["ended"]
    assert (found["how"], found["exit_code"]) == ("exited", None)
    assert "terminating on signal 15" in found["reason"]
    assert f"QEMU's last  {found['reason']}" in sevlaunch("status", "plain").stdout
    sevlaunch("down", "plain")


@pytest.mark.parametrize("damage", ["{", "{}", "[]", '{"name": "x", "sev": 1}', '{"pid": "\x1b[2J"}'])
def test_damaged_evidence_is_as_good_as_none(damage: str, sevlaunch: Command) -> None:
    sevlaunch("up", PLAIN, "--paused", *some_qemu())
    (sevlaunch.runtime / "plain/evidence.json").write_text(damage)
    assert listed(sevlaunch) == {"plain": "paused"}
    assert status_of(sevlaunch, "plain")["measurement"] is None
    assert "left no evidence" in sevlaunch("evidence", "plain", check=1).stderr
    sevlaunch("down", "plain", "--now")
