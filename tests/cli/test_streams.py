"""What becomes of output: it goes out line by line, and a guest does not depend on who reads it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import HOSTS, PROFILES, Command, wait_until
from tests.guest.support import PLAIN, finish, listed, qemu_processes, some_qemu

# Commands that print; a guest named plain is there.
PRINTING = (
    ("--help",),
    ("schema",),
    ("policy", "0x30000"),
    ("ps",),
    ("ps", "--format", "json"),
    ("status", "plain"),
    ("evidence", "plain"),
    ("logs", "plain"),
    ("render", PROFILES / "sev.yaml", "--host", "HOST", "--format", "explain"),
    ("check", PROFILES / "plain.yaml"),
)


@contextmanager
def nobody_reads() -> Iterator[int]:
    """A pipe whose other end is closed, as `head` leaves it."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        yield writer
    finally:
        os.close(writer)


def run(command: Command, *arguments: str | Path, stdout: Any) -> tuple[int, str]:
    """Exit code and what was said on stderr."""
    done = subprocess.run(
        command.argv(*arguments), env=command.environment, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=60
    )
    return done.returncode, done.stderr


@pytest.fixture
def running(sevlaunch: Command) -> Command:
    """The command, with a guest that prints on its console."""
    sevlaunch("up", PLAIN, "--paused", *some_qemu())
    return sevlaunch


@pytest.mark.parametrize("arguments", PRINTING, ids=lambda words: " ".join(map(str, words[:2])).replace("/", "-"))
def test_output_that_nobody_takes(arguments: tuple[str | Path, ...], running: Command) -> None:
    host = HOSTS / "milan-qemu-10.0.json"
    words = [host if word == "HOST" else word for word in arguments]
    usual = running(*words)
    with nobody_reads() as pipe:
        assert run(running, *words, stdout=pipe) == (0, usual.stderr)
    with Path("/dev/full").open("w") as full:
        code, errors = run(running, *words, stdout=full)
    if not usual.stdout:
        assert (code, errors) == (0, usual.stderr)
        return
    assert code == 4, errors
    assert "can't write the output: No space left on device" in errors
    assert "ignored" not in errors
    assert "Traceback" not in errors


def test_a_failure_stays_the_answer_when_nobody_reads(sevlaunch: Command) -> None:
    with nobody_reads() as pipe:
        code, errors = run(sevlaunch, "status", "nobody", stdout=pipe)
    assert code == 10
    assert "nobody" in errors


@pytest.mark.parametrize("taken", ["first line", "nothing", "full"])
def test_a_guest_in_the_foreground_goes_on_when_nobody_reads_of_it(taken: str, sevlaunch: Command) -> None:
    arguments = sevlaunch.argv("up", PLAIN, "--foreground", "--paused", "--down-timeout", "0", *some_qemu())
    full = os.open("/dev/full", os.O_WRONLY)
    reader, writer = os.pipe()
    output = full if taken == "full" else writer
    process = subprocess.Popen(arguments, env=sevlaunch.environment, stdout=output, stderr=output)
    os.close(full)
    os.close(writer)
    if taken == "first line":
        with os.fdopen(reader) as lines:
            assert lines.readline().startswith("plain is paused")
    else:
        os.close(reader)
    wait_until(lambda: listed(sevlaunch).get("plain") == "paused", 30, "the guest")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == (4 if taken == "full" else 0)
    assert qemu_processes(sevlaunch) == []
    assert sevlaunch.left_behind() == []


@pytest.mark.parametrize("arguments", [("events", "plain"), ("logs", "plain", "-f", "--qemu")], ids=["events", "logs"])
def test_what_follows_a_guest_ends_with_its_reader(arguments: tuple[str, ...], sevlaunch: Command) -> None:
    pid = sevlaunch("up", PLAIN, "--paused", "--format", "json", *some_qemu()).json["pid"]
    process = sevlaunch.start(*arguments)
    assert process.stdout
    if arguments[0] == "events":
        wait_until(lambda: process.poll() is not None or _holds_a_monitor(process.pid), 30, "it to follow")
        process.stdout.close()
        sevlaunch("resume", "plain")
    else:
        process.stdout.close()
        log = sevlaunch.runtime / "plain/qemu.log"
        with log.open("a") as file:
            file.write("something\n")
    process.stdout = None
    result = finish(process)
    assert (result.code, result.stderr) == (0, "")
    os.kill(pid, 0)


def _holds_a_monitor(pid: int) -> bool:
    with suppress(OSError):
        return any(str(entry.readlink()).startswith("socket:") for entry in Path(f"/proc/{pid}/fd").iterdir())
    return False
