"""Whatever moment a signal hits `sevlaunch up` at: the guest runs properly, or nothing of it is left."""

from __future__ import annotations

import random
import signal
import subprocess

import pytest

from tests.conftest import Command, wait_until
from tests.guest.support import (
    PLAIN,
    fake_qemu,
    finish,
    listed,
    moments,
    nothing_left,
    pause_until,
    qemu_processes,
    some_qemu,
    status_of,
    tries,
    usual_duration,
    wait_for_signal_handlers,
)

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def check_outcome(command: Command, process: subprocess.Popen[str], what: str) -> int:
    """The promise of this file, for a command that got signals; its exit code."""
    result = finish(process)
    told = f"{what}: exit {result.code}\n{result.stdout}\n{result.stderr}"
    assert "Traceback" not in result.stderr, told
    if result.code == 130:
        nothing_left(command, told)
    else:
        assert result.code == 0, told
        assert result.stdout.startswith("plain is running (pid "), told
        assert listed(command) == {"plain": "running"}, told
        assert len(qemu_processes(command)) == 1, told
        command("down", "plain", "--now")
        nothing_left(command, told)
    return result.code


@tries(27, 1000)
def test_a_signal_at_any_moment_leaves_a_proper_guest_or_nothing(count: int, sevlaunch: Command) -> None:
    duration = usual_duration(sevlaunch, PLAIN, *some_qemu())
    codes = []
    for number, moment in enumerate(moments(count, duration)):
        process = sevlaunch.start("up", PLAIN, *some_qemu())
        wait_for_signal_handlers(process)
        pause_until(process, moment)
        sent = SIGNALS[number % len(SIGNALS)]
        process.send_signal(sent)
        codes.append(check_outcome(sevlaunch, process, f"{sent.name} after {moment:.3f} s"))
    # Otherwise the moments were wrong, and the test shows nothing.
    assert 130 in codes


@tries(10, 400)
def test_many_signals_are_no_worse_than_one(count: int, sevlaunch: Command) -> None:
    duration = usual_duration(sevlaunch, PLAIN, *some_qemu())
    codes = []
    for moment in moments(count, duration):
        process = sevlaunch.start("up", PLAIN, *some_qemu())
        wait_for_signal_handlers(process)
        pause_until(process, moment)
        # An impatient user, and a terminal that goes away at the same time.
        for _ in range(random.randint(2, 6)):
            process.send_signal(random.choice(SIGNALS))
            pause_until(process, random.random() * 0.02)
        codes.append(check_outcome(sevlaunch, process, f"signals after {moment:.3f} s"))
    assert 130 in codes


@pytest.mark.parametrize("sent", SIGNALS, ids=lambda sent: sent.name)
def test_a_start_that_hangs_ends_by_a_signal_at_once(sent: signal.Signals, sevlaunch: Command) -> None:
    process = sevlaunch.start("up", PLAIN, *fake_qemu(sevlaunch, "silent"))
    wait_until(lambda: listed(sevlaunch) == {"plain": "starting"}, 30, "a start")
    process.send_signal(sent)
    assert finish(process, 20).code == 130
    nothing_left(sevlaunch)


def test_a_signal_that_nohup_has_ignored_stays_ignored(sevlaunch: Command) -> None:
    arguments = sevlaunch.argv("up", PLAIN, "--foreground", *some_qemu())
    process = subprocess.Popen(
        ["nohup", *arguments],
        env=sevlaunch.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
    )
    wait_until(lambda: listed(sevlaunch).get("plain") == "running", 30, "the guest")
    process.send_signal(signal.SIGHUP)
    # The guest's end, not the signal's, is what the command reports.
    sevlaunch("qmp", "plain", "quit")
    result = finish(process)
    assert result.code == 0, result.stderr
    assert "plain has ended" in result.stderr


@tries(12, 500)
def test_a_launcher_that_is_killed_leaves_nothing_that_cant_be_seen_and_cleared(count: int, sevlaunch: Command) -> None:
    duration = usual_duration(sevlaunch, PLAIN, *some_qemu())
    seen: set[str | None] = set()
    for number, moment in enumerate(moments(count, duration)):
        process = sevlaunch.start("up", PLAIN, *some_qemu())
        wait_for_signal_handlers(process)
        pause_until(process, moment)
        process.kill()
        process.communicate(timeout=30)
        told = f"killed after {moment:.3f} s"
        orphans = qemu_processes(sevlaunch)
        assert len(orphans) <= 1, told
        states = listed(sevlaunch)
        seen.add(states.get("plain"))
        if orphans:
            assert states in ({"plain": "abandoned"}, {"plain": "running"}), told
            assert status_of(sevlaunch, "plain")["pid"] == orphans[0], told
        if states and number % 2:
            sevlaunch("down", "plain", "--now")
            nothing_left(sevlaunch, told)
        elif states.get("plain") != "running":
            sevlaunch("up", PLAIN, *some_qemu())
            assert listed(sevlaunch) == {"plain": "running"}, told
            assert len(qemu_processes(sevlaunch)) == 1, told
            assert not set(orphans) & set(qemu_processes(sevlaunch)), told
        sevlaunch("down", "--all", "--now")
        nothing_left(sevlaunch, told)
    assert "abandoned" in seen
