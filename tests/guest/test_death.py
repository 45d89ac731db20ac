"""QEMU dies, in the start or later, by a signal or by its own decision: it is said at once, and nothing is left."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
from functools import partial
from pathlib import Path

import pytest

from sevlaunch.guest.diagnosis import hint_for
from tests import needs
from tests.conftest import Command, Result, wait_until
from tests.guest.support import (
    JSON,
    PLAIN,
    ended,
    fake_qemu,
    finish,
    listed,
    no_traceback,
    ordinary_user,
    pause_until,
    qemu_processes,
    some_qemu,
    status_of,
    tries,
    with_qemu,
)
from tests.guest.tiny_firmware import options_for, writes_to_port

# A start that misses QEMU's death would sit there this long.
LONG = ("--timeout", "300")
# Far above what noticing takes, far below LONG.
AT_ONCE = 30.0


@tries(12, 300)
def test_a_qemu_that_is_killed_in_the_start_is_noticed_at_once(count: int, sevlaunch: Command) -> None:
    for number in range(count):
        process = sevlaunch.start("up", PLAIN, *LONG, *some_qemu())
        found = wait_until(lambda: qemu_processes(sevlaunch), 30, "a QEMU")
        # QEMU is ready after about a tenth of a second; the first kills come as early as they can.
        pause_until(process, number / count * random.random() * 0.2)
        os.kill(found[0], signal.SIGKILL)
        result = finish(process, AT_ONCE)
        no_traceback(result)
        if result.code == 0:
            # It had been announced as running before it died.
            assert listed(sevlaunch) == {"plain": "exited"}
            sevlaunch("down", "plain")
        else:
            assert_killed_in_the_start(result)
        assert sevlaunch.left_behind() == []
    sevlaunch("up", PLAIN, *some_qemu())


def assert_killed_in_the_start(result: Result) -> None:
    """What `up` says of a QEMU that was killed before the guest was announced."""
    assert result.code == 5, result
    assert "was killed by signal 9 while plain was being started" in result.stderr
    assert "out of memory" in result.stderr


def test_a_qemu_that_is_killed_before_its_first_word_is_noticed_at_once(sevlaunch: Command) -> None:
    process = sevlaunch.start("up", PLAIN, *LONG, *fake_qemu(sevlaunch, "silent"))
    [pid] = wait_until(lambda: qemu_processes(sevlaunch), 30, "a QEMU")
    os.kill(pid, signal.SIGKILL)
    result = finish(process, AT_ONCE)
    no_traceback(result)
    assert_killed_in_the_start(result)
    assert sevlaunch.left_behind() == []


def test_a_guest_whose_qemu_was_killed_has_exited_and_its_name_is_free(sevlaunch: Command) -> None:
    for clear_away in (True, False):
        pid = sevlaunch("up", PLAIN, *JSON, *some_qemu()).json["pid"]
        os.kill(pid, signal.SIGKILL)
        wait_until(partial(ended, pid), 30, "the end of QEMU")
        status = status_of(sevlaunch, "plain")
        assert (status["state"], status["pid"]) == ("exited", None)
        assert "plain has ended" not in sevlaunch("logs", "plain").stdout
        if clear_away:
            assert sevlaunch("down", "plain").stdout == "plain: had ended already\n"
            assert sevlaunch.left_behind() == []
    again = sevlaunch("up", PLAIN, *JSON, *some_qemu()).json
    assert listed(sevlaunch) == {"plain": "running"}
    assert qemu_processes(sevlaunch) == [again["pid"]]


def test_the_command_in_the_foreground_notices_the_kill(sevlaunch: Command) -> None:
    process = sevlaunch.start("up", PLAIN, "--foreground", *some_qemu())
    wait_until(lambda: listed(sevlaunch).get("plain") == "running", 30, "the guest")
    os.kill(qemu_processes(sevlaunch)[0], signal.SIGKILL)
    result = finish(process, AT_ONCE)
    no_traceback(result)
    assert result.code == 5, result
    assert "plain has ended: QEMU was killed by signal 9 (SIGKILL)" in result.stderr
    assert "out of memory" in result.stderr
    # What is known of it stays, and the name is free.
    assert status_of(sevlaunch, "plain")["ended"] == {"how": "killed", "exit_code": -9, "reason": None}
    assert "ended        killed by signal 9" in sevlaunch("status", "plain").stdout
    assert sevlaunch("logs", "plain", "--qemu").code == 0
    sevlaunch("up", PLAIN, "--paused", *some_qemu())
    assert status_of(sevlaunch, "plain")["ended"] is None
    sevlaunch("down", "plain", "--now")
    assert sevlaunch.left_behind() == []


def in_the_foreground(command: Command, *options: str) -> subprocess.Popen[str]:
    """The command with a guest that has its first instruction behind it: not before somebody watches it."""
    process = command.start("up", PLAIN, "--foreground", "--paused", *options)
    assert process.stdout and process.stdout.readline().startswith("plain is paused")
    # QEMU may end before it has answered.
    command("qmp", "plain", "cont", check=None)
    return process


def panics(command: Command, binary: str) -> list[str]:
    """The options for a guest that panics: QEMU's docs/specs/pvpanic.rst, bit 0 of port 0x505."""
    return options_for(command.base, binary, writes_to_port(0x505, 1), "-device", "pvpanic")


def test_a_guest_that_panics_in_the_foreground_is_a_failure(qemu_binary: str, sevlaunch: Command) -> None:
    options = panics(sevlaunch, qemu_binary)
    result = finish(in_the_foreground(sevlaunch, *options), AT_ONCE)
    no_traceback(result)
    assert result.code == 5, result
    assert "plain has crashed (guest-panicked)" in result.stderr
    assert status_of(sevlaunch, "plain")["ended"] == {"how": "crashed", "exit_code": None, "reason": "guest-panicked"}
    assert sevlaunch("down", "plain").stdout == "plain: had ended already\n"


def test_a_guest_that_panics_can_be_kept_to_be_looked_at(qemu_binary: str, sevlaunch: Command) -> None:
    options = panics(sevlaunch, qemu_binary)
    process = in_the_foreground(sevlaunch, *options, "--set", "on_crash=keep")
    wait_until(lambda: listed(sevlaunch).get("plain") == "guest-panicked", 30, "the panic")
    sevlaunch("down", "plain", "--now")
    result = finish(process, AT_ONCE)
    assert result.code == 0, result
    assert "plain has crashed (guest-panicked): it is left as it is" in result.stderr
    assert sevlaunch.left_behind() == []


def test_a_guest_that_crashes_again_and_again_is_not_started_for_ever(sevlaunch: Command) -> None:
    options = fake_qemu(sevlaunch, "stops", answer={"status": "internal-error", "running": False})
    result = sevlaunch("up", PLAIN, "--foreground", *options, "--set", "on_crash=relaunch", check=5)
    assert result.stderr.count("plain crashed: starting it anew") == 5
    assert "plain crashed 6 times within 300 s: it is not started anew" in result.stderr


def test_a_qemu_that_fails_in_the_foreground_is_a_failure(qemu_binary: str, sevlaunch: Command) -> None:
    # QEMU's hw/misc/debugexit.c: it ends with twice the value and one.
    options = options_for(sevlaunch.base, qemu_binary, writes_to_port(0x501, 3), "-device", "isa-debug-exit")
    result = finish(in_the_foreground(sevlaunch, *options), AT_ONCE)
    assert result.code == 5, result
    assert "plain has ended: QEMU failed with exit code 7" in result.stderr
    found = status_of(sevlaunch, "plain")["ended"]
    assert (found["how"], found["exit_code"]) == ("failed", 7)


@pytest.mark.parametrize("state", ["internal-error", "io-error"])
def test_a_guest_that_stops_for_good_in_the_foreground_is_a_failure(state: str, sevlaunch: Command) -> None:
    options = fake_qemu(sevlaunch, "stops", answer={"status": state, "running": False})
    result = sevlaunch("up", PLAIN, "--foreground", *options, check=5)
    no_traceback(result)
    assert f"plain has crashed ({state})" in result.stderr
    assert qemu_processes(sevlaunch) == []
    assert status_of(sevlaunch, "plain")["ended"] == {"how": "crashed", "exit_code": None, "reason": state}


def test_a_qemu_that_down_had_to_kill_is_no_failure(sevlaunch: Command) -> None:
    options = fake_qemu(sevlaunch, "stubborn", commands="stubborn")
    process = sevlaunch.start("up", PLAIN, "--foreground", *options)
    wait_until(lambda: listed(sevlaunch).get("plain") == "paused", 30, "the guest")
    assert sevlaunch("down", "plain", "--now").stdout == "plain: killed\n"
    assert finish(process, AT_ONCE).code == 0
    assert sevlaunch.left_behind() == []


def test_an_image_that_another_guest_uses_is_said(qemu_binary: str, sevlaunch: Command) -> None:
    disk = sevlaunch.base / "disk.raw"
    disk.write_bytes(bytes(1 << 20))
    option = ("--set", f"disks=[{{path: {disk}, format: raw}}]", *with_qemu(qemu_binary))
    sevlaunch("up", PLAIN, "--name", "first", *option)
    result = sevlaunch("up", PLAIN, *LONG, *option, check=5)
    assert "QEMU ended with exit code 1 while plain was being started" in result.stderr
    assert "qemu: " in result.stderr and "lock" in result.stderr
    assert "hint: another process uses the image" in result.stderr
    assert listed(sevlaunch) == {"first": "running"}


@pytest.mark.parametrize("runs_as", ["this user", "another user"])
def test_an_image_is_one_guests_whatever_runtime_folder_or_user_the_other_has(runs_as: str, sevlaunch: Command) -> None:
    disk = sevlaunch.base / "disk.raw"
    disk.write_bytes(bytes(1 << 20))
    options = ("--set", f"disks=[{{path: {disk}, format: raw}}]", "--set", "accel=tcg")
    (sevlaunch.base / "other").mkdir()
    if runs_as == "another user":
        other: Command = ordinary_user(sevlaunch.base / "other")
        qemu = ("--set", f"qemu.binary={needs.program('qemu-system-x86_64', 'qemu-system-x86')}")
        sevlaunch.base.chmod(0o755)
        disk.chmod(0o666)
    else:
        other, qemu = Command(sevlaunch.base / "other"), some_qemu()
    sevlaunch("up", PLAIN, "--paused", *options, *qemu)
    result = other("up", PLAIN, "--paused", *options, *qemu, check=5)
    assert "hint: another process uses the image" in result.stderr
    assert listed(sevlaunch) == {"plain": "paused"}


def test_a_host_port_in_use_is_said(qemu_binary: str, sevlaunch: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        result = sevlaunch(
            "up",
            PLAIN,
            *LONG,
            "--set",
            f"networks=[{{type: user, forward: ['tcp:127.0.0.1:{port}:22']}}]",
            *JSON,
            *with_qemu(qemu_binary),
            check=5,
        )
    assert f"Could not set up host forwarding rule 'tcp:127.0.0.1:{port}-:22'" in result.stderr
    assert "the host port is in use" in result.stderr
    assert '"kind": "QemuError"' in result.stderr
    assert sevlaunch.left_behind() == []


def test_every_known_message_has_its_own_hint() -> None:
    messages = [
        "qemu-system-x86_64: -accel tcg: accelerator does not support confidential guest",
        "qemu-system-x86_64: sev_kvm_init: cbitpos check failed, host '51' requested '47'",
        'qemu-system-x86_64: Failed to get "write" lock',
        "qemu-system-x86_64: mlockall: Cannot allocate memory",
        "qemu-system-x86_64: unable to map backing store for guest RAM: Cannot allocate memory",
        "Could not access KVM kernel module: Permission denied",
        "Could not access KVM kernel module: No such file or directory",
        "sev_launch_start: LAUNCH_START ret=1 fw_error=11 'Bad measurement'",
    ]
    hints = [hint_for([message]) for message in messages]
    assert all(hints)
    assert len(set(hints)) == len(messages)
    assert hint_for(["something new"]) == hint_for([]) == ""


def script(command: Command, text: str) -> tuple[str, str]:
    """The option that chooses a program with this text as QEMU."""
    file = command.base / "qemu"
    file.write_text(text)
    file.chmod(0o755)
    command.environment["XDG_CACHE_HOME"] = str(command.base / "cache")
    return with_qemu(str(file))


@pytest.mark.parametrize(
    "text",
    [
        "#!/bin/sh\nhead -c 3000 /dev/urandom\n",
        "#!/bin/sh\nexit 0\n",
        "#!/bin/sh\necho no licence >&2\nexit 3\n",
        "#!/no/such/interpreter\n",
        "just text",
        "",
        "#!/bin/sh\nkill -9 $$\n",
        "#!/bin/sh\necho '[]'; echo '{\"return\": 1}'\n",
    ],
    ids=["garbage", "exit 0", "exit 3", "no interpreter", "no script", "empty", "killed", "not QMP"],
)
def test_a_binary_that_is_no_qemu_is_said(text: str, sevlaunch: Command) -> None:
    result = sevlaunch("up", PLAIN, *script(sevlaunch, text), check=4)
    no_traceback(result)
    assert str(sevlaunch.base / "qemu") in result.stderr
    if "licence" in text:
        assert "no licence" in result.stderr
    assert sevlaunch.left_behind() == []


@pytest.mark.parametrize("path", ["/no/such/qemu", "/tmp", "/etc/passwd"])
def test_a_binary_that_is_not_there_is_said(path: str, sevlaunch: Command) -> None:
    result = sevlaunch("up", PLAIN, *with_qemu(path), check=4)
    assert f"wanted the QEMU binary {path}" in result.stderr
    assert sevlaunch.left_behind() == []


def test_a_qemu_that_answers_the_questions_and_then_ends_with_success_is_a_failure(sevlaunch: Command) -> None:
    real = some_qemu()[1].partition("=")[2]
    text = f'#!/bin/sh\n[ "$2" = none ] && exec {real} "$@"\nexit 0\n'
    result = sevlaunch("up", PLAIN, *LONG, *script(sevlaunch, text), check=5)
    assert "QEMU ended with exit code 0 while plain was being started" in result.stderr
    assert "it printed nothing" in result.stderr
    assert sevlaunch.left_behind() == []


def test_a_binary_that_goes_away_between_the_questions_and_the_start_is_said(sevlaunch: Command) -> None:
    real = some_qemu()[1].partition("=")[2]
    # The answers are in the cache from the first command; what then lacks is the interpreter.
    interpreter = sevlaunch.base / "sh"
    interpreter.symlink_to("/bin/sh")
    option = script(sevlaunch, f'#!{interpreter}\nexec {real} "$@"\n')
    sevlaunch("up", PLAIN, "--paused", *option)
    sevlaunch("down", "plain")
    interpreter.unlink()
    result = sevlaunch("up", PLAIN, *option, check=5)
    no_traceback(result)
    assert "can't start" in result.stderr
    assert sevlaunch.left_behind() == []


def test_the_last_lines_of_qemu_are_in_the_error(sevlaunch: Command) -> None:
    begin = time.monotonic()
    result = sevlaunch("up", PLAIN, *LONG, *fake_qemu(sevlaunch, "hang_up_mid_answer"), check=5)
    assert time.monotonic() - begin < AT_ONCE
    assert "QEMU ended with exit code 1 while plain was being started" in result.stderr
    assert "  qemu: fake: Cannot allocate memory\n" in result.stderr
    assert "hint: there is not enough free memory" in result.stderr
    assert sevlaunch.left_behind() == []
    assert not Path(sevlaunch.runtime / "plain").exists()
