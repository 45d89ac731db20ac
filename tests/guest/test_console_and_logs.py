"""The guest's output and its console: in pipes, and on a terminal."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import tempfile
import termios
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests import needs
from tests.conftest import PROFILES, Command, wait_for_console, wait_until
from tests.guest.support import JSON, PLAIN, finish, kill_all, some_qemu

ESCAPE = b"\x1d"


@pytest.fixture(scope="module")
def booted() -> Iterator[Command]:
    """The demo guest, booted once for the whole file."""
    needs.demo_guest()
    with tempfile.TemporaryDirectory(prefix="sl-", dir="/tmp", ignore_cleanup_errors=True) as base:
        command = Command(Path(base))
        try:
            command("up", PROFILES / "demo.yaml", *some_qemu())
            wait_for_console(command, "demo", "demo: ready", limit=300)
            yield command
        finally:
            kill_all(command.processes())


class Terminal:
    """`sevlaunch console` on a terminal of its own."""

    def __init__(self, command: Command, name: str) -> None:
        self.ours, self.theirs = pty.openpty()
        self.before = termios.tcgetattr(self.theirs)
        self.output = b""
        self.process = subprocess.Popen(
            command.argv("console", name),
            env=command.environment,
            stdin=self.theirs,
            stdout=self.theirs,
            stderr=self.theirs,
            start_new_session=True,
        )
        os.set_blocking(self.ours, False)

    def shows(self, text: bytes) -> None:
        """Wait for output."""

        def look() -> bool:
            with suppress(BlockingIOError):
                self.output += os.read(self.ours, 65536)
            return text in self.output

        wait_until(look, 60, f"{text!r} on the terminal")

    def types(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self.ours, keys)

    def settings(self) -> list[object]:
        """The terminal's settings."""
        return list(termios.tcgetattr(self.theirs))

    def close(self) -> None:
        """End it, whatever state it is in."""
        self.process.kill()
        self.process.wait()
        os.close(self.ours)
        os.close(self.theirs)


def test_logs_prints_what_the_console_showed(booted: Command) -> None:
    assert "demo: ready" in booted("logs", "demo").stdout
    assert booted("logs", "demo", "--qemu").stdout == ""


def test_a_pipe_talks_to_the_guests_shell(booted: Command) -> None:
    process = subprocess.Popen(
        booted.argv("console", "demo"),
        env=booted.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin and process.stdout and process.stderr
    try:
        # The guest's answer, not the echo of the question. The input ends before the answer comes.
        process.stdin.write(b"echo sum=$((40+2))\n")
        process.stdin.close()
        got = b""
        while b"sum=42" not in got:
            piece = os.read(process.stdout.fileno(), 4096)
            assert piece, got
            got += piece
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def test_the_escape_key_leaves_and_the_terminal_is_as_before(booted: Command) -> None:
    with closing(Terminal(booted, "demo")) as terminal:
        terminal.shows(b"connected to demo; leave with Ctrl-]\r\n")
        assert terminal.settings() != terminal.before
        terminal.types(b"echo product=$((6*7))\r")
        terminal.shows(b"product=42")
        # Ctrl-C is the guest's: its shell starts a new line.
        terminal.types(b"echo lost=\x03")
        terminal.shows(b"echo lost=^C")
        # Keys before the escape key, in the same reading, still reach the guest.
        terminal.types(b"echo last=$((1+1))\r" + ESCAPE)
        assert terminal.process.wait(60) == 0
        terminal.shows(b"left by the escape key")
        assert terminal.settings() == terminal.before
    log = booted.runtime / "demo/qemu/console.log"
    wait_until(lambda: b"last=2" in log.read_bytes(), 60, "the guest's answer")
    # The guest does not mind, and the console is free for the next.
    with closing(Terminal(booted, "demo")) as terminal:
        terminal.shows(b"connected to demo")
        terminal.types(b"echo again=$((2*4))\r")
        terminal.shows(b"again=8")
        terminal.types(ESCAPE)
        assert terminal.process.wait(60) == 0


def test_logs_of_a_guest_with_and_without_a_console(sevlaunch: Command) -> None:
    sevlaunch("up", PLAIN, "--paused", "--set", "console=none", *some_qemu())
    assert "plain has no console.log" in sevlaunch("logs", "plain", check=1).stderr
    assert "console: none" in sevlaunch("console", "plain", check=1).stderr
    assert sevlaunch("logs", "plain", "--qemu").stdout == ""


def test_logs_that_follow_end_with_the_guest(sevlaunch: Command) -> None:
    sevlaunch("up", PLAIN, "--paused", *some_qemu())
    log = sevlaunch.runtime / "plain/qemu/console.log"
    followed = sevlaunch.start("logs", "-f", "plain")
    # What is added while it follows counts, too.
    with log.open("ab", buffering=0) as stream:
        stream.write(b"first\n")
        assert followed.stdout
        assert followed.stdout.readline() == "first\n"
        stream.write(b"second\n")
        assert followed.stdout.readline() == "second\n"
    assert followed.poll() is None
    sevlaunch("down", "plain", "--now")
    assert finish(followed).code == 0


def test_a_terminal_is_restored_when_the_guest_ends(sevlaunch: Command) -> None:
    sevlaunch("up", PLAIN, "--paused", *some_qemu())
    with closing(Terminal(sevlaunch, "plain")) as terminal:
        terminal.shows(b"connected to plain")
        sevlaunch("down", "plain", "--now")
        assert terminal.process.wait(60) == 0
        terminal.shows(b"the guest's console was closed")
        assert terminal.settings() == terminal.before


def test_a_qemu_that_is_killed_before_it_reads_the_keys_ends_the_console_in_good_order(sevlaunch: Command) -> None:
    pid = sevlaunch("up", PLAIN, "--paused", *JSON, *some_qemu()).json["pid"]
    with closing(Terminal(sevlaunch, "plain")) as terminal:
        terminal.shows(b"connected to plain")
        os.kill(pid, signal.SIGSTOP)
        terminal.types(b"nobody reads this")
        # The terminal has handed the keys on when there are none left in it.
        wait_until(lambda: not select.select([terminal.theirs], [], [], 0)[0], 30, "the keys on their way")
        os.kill(pid, signal.SIGKILL)
        assert terminal.process.wait(60) == 0
        terminal.shows(b"the guest's console was closed")
        assert terminal.settings() == terminal.before


def test_the_escape_key_leaves_a_guest_that_reads_nothing(sevlaunch: Command) -> None:
    pid = sevlaunch("up", PLAIN, "--paused", *JSON, *some_qemu()).json["pid"]
    with closing(Terminal(sevlaunch, "plain")) as terminal:
        terminal.shows(b"connected to plain")
        os.kill(pid, signal.SIGSTOP)
        terminal.types(b"nobody reads this" + ESCAPE)
        assert terminal.process.wait(60) == 0
        assert terminal.settings() == terminal.before
