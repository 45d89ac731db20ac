"""Whatever moment a signal hits `sevlaunch up` at: the guest runs properly, or nothing of it is left."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, Command, wait_until
from tests.guest.support import (
    PLAIN,
    fake_qemu,
    finish,
    listed,
    moments,
    no_traceback,
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


def check_outcome(command: Command, process: subprocess.Popen[str], what: str) -> None:
    """The promise of this file, for a command that got signals at some moment, be it too late."""
    result = finish(process)
    told = f"{what}: exit {result.code}\n{result.stdout}\n{result.stderr}"
    assert "Traceback" not in result.stderr, told
    if result.code == 130:
        assert result.stderr.endswith("sevlaunch: interrupted\n"), told
        nothing_left(command, told)
    else:
        assert result.code == 0, told
        assert result.stdout.startswith("plain is running (pid "), told
        assert listed(command) == {"plain": "running"}, told
        assert len(qemu_processes(command)) == 1, told
        command("down", "plain", "--now")
        nothing_left(command, told)


@tries(27, 1000)
def test_a_signal_at_any_moment_leaves_a_proper_guest_or_nothing(count: int, sevlaunch: Command) -> None:
    duration = usual_duration(sevlaunch, PLAIN, *some_qemu())
    for number, moment in enumerate(moments(count, duration)):
        process = sevlaunch.start("up", PLAIN, *some_qemu())
        wait_for_signal_handlers(process)
        pause_until(process, moment)
        sent = SIGNALS[number % len(SIGNALS)]
        process.send_signal(sent)
        check_outcome(sevlaunch, process, f"{sent.name} after {moment:.3f} s")


@tries(10, 400)
def test_many_signals_are_no_worse_than_one(count: int, sevlaunch: Command) -> None:
    duration = usual_duration(sevlaunch, PLAIN, *some_qemu())
    for moment in moments(count, duration):
        process = sevlaunch.start("up", PLAIN, *some_qemu())
        wait_for_signal_handlers(process)
        pause_until(process, moment)
        # An impatient user, and a terminal that goes away at the same time.
        for _ in range(random.randint(2, 6)):
            process.send_signal(random.choice(SIGNALS))
            pause_until(process, random.random() * 0.02)
        check_outcome(sevlaunch, process, f"signals after {moment:.3f} s")


@pytest.mark.parametrize("sent", SIGNALS, ids=lambda sent: sent.name)
def test_a_start_that_hangs_ends_by_a_signal_at_once(sent: signal.Signals, sevlaunch: Command) -> None:
    process = sevlaunch.start("up", PLAIN, *fake_qemu(sevlaunch, "silent"))
    wait_until(lambda: listed(sevlaunch) == {"plain": "starting"}, 30, "a start")
    process.send_signal(sent)
    result = finish(process, 20)
    assert (result.code, result.stderr) == (130, "sevlaunch: interrupted\n")
    nothing_left(sevlaunch)


def test_a_start_that_hangs_ends_by_many_signals_as_by_one(sevlaunch: Command) -> None:
    process = sevlaunch.start("up", PLAIN, *fake_qemu(sevlaunch, "silent"))
    wait_until(lambda: listed(sevlaunch) == {"plain": "starting"}, 30, "a start")
    for sent in SIGNALS * 2:
        process.send_signal(sent)
    result = finish(process, 20)
    assert result.code == 130
    no_traceback(result)
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
    for number, moment in enumerate(moments(count, duration)):
        process = sevlaunch.start("up", PLAIN, *some_qemu())
        wait_for_signal_handlers(process)
        pause_until(process, moment)
        check_after_kill(sevlaunch, process, f"killed after {moment:.3f} s", take_down=bool(number % 2))


@pytest.mark.parametrize("take_down", [True, False])
def test_a_launcher_that_is_killed_when_qemu_runs_leaves_it_abandoned(take_down: bool, sevlaunch: Command) -> None:
    process = sevlaunch.start("up", PLAIN, *fake_qemu(sevlaunch, "late"))
    # QEMU begins only when its launcher is gone, which so can't be through before it is killed.
    pid = wait_until(lambda: next(filter(stopped, qemu_processes(sevlaunch)), None), 30, "a QEMU that waits")
    process.kill()
    process.wait(30)
    os.kill(pid, signal.SIGCONT)
    wait_until((sevlaunch.runtime / "plain/qemu/commands.sock").exists, 30, "the monitor of QEMU")
    assert check_after_kill(sevlaunch, process, "killed before QEMU", take_down=take_down) == "abandoned"


def stopped(pid: int) -> bool:
    """Whether a process waits for SIGCONT."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def check_after_kill(command: Command, process: subprocess.Popen[str], told: str, *, take_down: bool) -> str | None:
    """Kill the launcher; the state of its guest, which then is cleared away by down, or by another up."""
    process.kill()
    process.communicate(timeout=30)
    orphans = qemu_processes(command)
    assert len(orphans) <= 1, told
    states = listed(command)
    if orphans:
        assert states in ({"plain": "abandoned"}, {"plain": "running"}), told
        assert status_of(command, "plain")["pid"] == orphans[0], told
    if states and take_down:
        command("down", "plain", "--now")
        nothing_left(command, told)
    elif states.get("plain") != "running":
        command("up", PLAIN, *some_qemu())
        assert listed(command) == {"plain": "running"}, told
        assert len(qemu_processes(command)) == 1, told
        assert not set(orphans) & set(qemu_processes(command)), told
    command("down", "--all", "--now")
    nothing_left(command, told)
    return states.get("plain")


@pytest.mark.parametrize("module", ["typer", "msgspec"])
def test_a_signal_while_a_class_is_made_is_a_signal(module: str, sevlaunch: Command, base: Path) -> None:
    # Python makes a RuntimeError of what is raised there. One module is imported first of all, one by the command.
    (base / f"{module}.py").write_text(
        "import os, signal\n"
        "class Name:\n"
        "    def __set_name__(self, owner, name): os.kill(os.getpid(), signal.SIGTERM)\n"
        "class Owner: name = Name()\n"
    )
    sevlaunch.environment["PYTHONPATH"] = f"{base}:{ROOT}"
    result = sevlaunch("render", PLAIN, check=130)
    assert (result.stdout, result.stderr) == ("", "sevlaunch: interrupted\n")


# The first signal comes while others are held back, or to work in an event loop; from there on, one with each line.
FLOOD_OF_SIGNALS = """
import asyncio, os, signal, sys
from sevlaunch.cli import app, main, signals

def trace(frame, event, argument):
    if "sevlaunch" in frame.f_code.co_filename:
        os.kill(os.getpid(), signal.SIGINT)
    return trace

def first():
    os.kill(os.getpid(), signal.SIGTERM)
    frame = sys._getframe()
    while frame:
        frame.f_trace = trace
        frame = frame.f_back
    sys.settrace(trace)

async def work():
    if sys.argv[1] == "work":
        first()
    await asyncio.sleep(60)

def run():
    from sevlaunch.cli.interrupt import run
    with signals.hold_signals():
        if sys.argv[1] == "held":
            first()
        run(work())

app.run = run
main.main()
"""


@pytest.mark.parametrize("where", ["held", "work"])
def test_from_the_first_signal_on_no_other_one_raises_at_any_line(where: str, sevlaunch: Command) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FLOOD_OF_SIGNALS, where],
        env=sevlaunch.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "sevlaunch: interrupted\n")
