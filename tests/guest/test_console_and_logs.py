"""The guest's output and its console: in pipes, and on a terminal."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import tempfile
import termios
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests import needs
from tests.conftest import PROFILES, Command, qemu_binary_of, wait_for_console, wait_until
from tests.guest.support import JSON, PLAIN, finish, kill_all, some_qemu
from tests.guest.tiny_firmware import FLOODS, options_for

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
    log = booted.console_logs("demo")[0]
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
    log = sevlaunch.console_logs("plain")[0]
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


BOUND = 256 << 10
# What may lie on the disk beside it: a block of the file system, and what came between two looks.
SLACK = 512 << 10


@pytest.fixture
def flooding(qemu_binary: str, sevlaunch: Command) -> Command:
    """A guest that prints numbered lines as fast as it can, from now on."""
    options = options_for(sevlaunch.base, qemu_binary, FLOODS)
    sevlaunch("up", PLAIN, "--set", f"console_log={BOUND}", *options)
    return sevlaunch


def keeper_of(command: Command) -> int:
    """The process that keeps the log."""
    [found] = set(command.processes()) - set(command.programs())
    return found


def memory_of(pid: int) -> int:
    """What a process has in memory, in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def check_bound(command: Command, rounds: int) -> None:
    """The log of a guest that floods stays within its bound, and its keeper small, while it outgrows it that often."""
    [log] = command.console_logs("plain")
    memory = memory_of(keeper_of(command))
    for number in range(1, rounds + 1):
        wait_until(lambda: log.stat().st_size > number * 4 * BOUND, 120, "a flood")  # noqa: B023 - called at once
        assert log.stat().st_blocks * 512 < BOUND + SLACK
    assert memory_of(keeper_of(command)) - memory < 1 << 20


def check_lines(text: str) -> None:
    """The numbers of the lines follow each other."""
    numbers = [int(line, 16) for line in text.splitlines()]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_a_console_that_floods_stays_within_its_bound_and_its_end_is_kept(flooding: Command) -> None:
    check_bound(flooding, 3)
    flooding("down", "plain", "--now")
    assert flooding.left_behind() == []
    # The guest has gone; what it said last has not.
    kept = flooding("logs", "plain").stdout
    assert BOUND // 2 < len(kept) <= BOUND + SLACK
    lines = kept.splitlines()
    check_lines("\n".join(lines[:-1] if len(lines[-1]) < 8 else lines))
    assert flooding("logs", "plain", "-n", "5").stdout.splitlines() == lines[-5:]
    assert flooding("logs", "plain", "-n", "0").stdout == ""
    assert flooding("logs", "plain", "--since", "1h").stdout == kept
    assert flooding("logs", "plain", "--since", "2999-01-01").stdout == ""
    assert "wanted a time such as" in flooding("logs", "plain", "--since", "soon", check=2).stderr


@pytest.mark.soak
def test_a_console_that_floods_for_a_minute(sevlaunch: Command) -> None:
    sevlaunch(
        "up", PLAIN, "--set", f"console_log={BOUND}", *options_for(sevlaunch.base, qemu_binary_of("10.0"), FLOODS)
    )
    end = time.monotonic() + 60
    while time.monotonic() < end:
        check_bound(sevlaunch, 1)
        lines = sevlaunch("logs", "plain", "-n", "100").stdout.splitlines()
        check_lines("\n".join(lines[:-1]))
    sevlaunch("down", "plain", "--now")


def test_a_log_of_3_gib_is_read_in_little_memory(sevlaunch: Command) -> None:
    sevlaunch("up", PLAIN, "--paused", *some_qemu())
    [log] = sevlaunch.console_logs("plain")
    os.kill(keeper_of(sevlaunch), signal.SIGKILL)
    # A single line of 3 GiB: nobody can find its beginning without looking at all of it.
    last = b"\nlast\n"
    with log.open("r+b") as stream:
        for _ in range(3):
            stream.write(b"x" * (1 << 20))
            stream.seek(1 << 30, os.SEEK_CUR)
        stream.write(last)
    limit = ("prlimit", f"--as={512 << 20}")
    words = [*limit, *sevlaunch.argv("logs", "plain", "-n", "1")]
    done = subprocess.run(words, env=sevlaunch.environment, capture_output=True, text=True, check=True)
    assert done.stdout == "last\n"
    words = [*limit, *sevlaunch.argv("logs", "plain", "--raw")]
    done = subprocess.run(words, env=sevlaunch.environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip("x") == last.decode()


def test_the_log_of_the_start_before_is_put_aside(sevlaunch: Command) -> None:
    for word in ("first", "second"):
        sevlaunch("up", PLAIN, "--paused", *some_qemu())
        [log] = sevlaunch.console_logs("plain")
        with log.open("a") as stream:
            stream.write(word)
        sevlaunch("down", "plain", "--now")
        assert sevlaunch("logs", "plain").stdout == word
    assert log.with_name("console.log.1").read_text() == "first"
