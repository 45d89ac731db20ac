"""One way to QMP: busy is never stuck, a healthy guest is powered down whoever talks to it, SIGTERM before SIGKILL."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sevlaunch import sync
from sevlaunch.api import Guest
from sevlaunch.errors import GuestBusy, GuestNotFound, GuestTimeout
from sevlaunch.guest.commands import status
from sevlaunch.guest.folder import find
from sevlaunch.guest.life import qemu_pid
from sevlaunch.guest.locks import COMMANDS_MONITOR, PROGRAMS_MONITOR, REMOVING, STARTING, Range, held_by_another, take
from sevlaunch.guest.monitor import commands_monitor, programs_monitor
from tests.conftest import Command, Result, wait_for_console, wait_until
from tests.guest.support import (
    JSON,
    PLAIN,
    ended,
    fake_log,
    fake_qemu,
    finish,
    listed,
    lock_of,
    no_traceback,
    nothing_left,
    some_qemu,
    status_of,
    tries,
)

LOOKS = (("ps", *JSON), ("status", "plain", *JSON), ("qmp", "plain", "query-status"))


def look(command: Command, count: int) -> list[subprocess.Popen[str]]:
    """That many commands at once that ask the guest something."""
    return [command.start(*LOOKS[number % len(LOOKS)]) for number in range(count)]


def answered(result: Result) -> None:
    """The command answered, if only that the guest has gone, and took nobody for stuck."""
    no_traceback(result)
    assert result.code in (0, 1, 5, 10), result
    assert "unresponsive" not in result.stdout, result
    assert "stuck" not in result.stderr, result


@contextmanager
def turn_taken(command: Command, monitor: Range) -> Iterator[None]:
    """Somebody has the turn at a monitor all the time."""
    fd = os.open(command.runtime / "plain/launcher", os.O_RDWR)
    try:
        assert take(fd, monitor)
        yield
    finally:
        os.close(fd)


@tries(20, 120)
def test_all_answer_beside_a_program_that_is_attached(count: int, sevlaunch: Command) -> None:
    sevlaunch("up", PLAIN, *some_qemu())
    with sync.attach("plain", root=sevlaunch.runtime) as guest:
        results = [finish(process, 300) for process in look(sevlaunch, count)]
        assert guest.state() == "running"
    for result in results:
        answered(result)
        assert result.code == 0, result
        assert '"running"' in result.stdout
    sevlaunch("down", "plain", "--now")
    nothing_left(sevlaunch)


@tries(20, 120)
def test_all_answer_beside_a_down(count: int, sevlaunch: Command) -> None:
    sevlaunch("up", PLAIN, *some_qemu())
    looks = look(sevlaunch, count // 2)
    # The guest has no system that hears the button: what the commands see is the whole of the way.
    down = sevlaunch.start("down", "plain", "--timeout", "2")
    looks += look(sevlaunch, count - count // 2)
    for process in looks:
        answered(finish(process, 300))
    assert finish(down, 300).stdout == "plain: quit\n"
    nothing_left(sevlaunch)


def test_down_powers_a_guest_down_while_a_program_is_attached(demo: Path, sevlaunch: Command) -> None:
    sevlaunch("up", demo, *some_qemu())
    wait_for_console(sevlaunch, "demo", "demo: ready", limit=300)
    with sync.attach("demo", root=sevlaunch.runtime) as guest:
        events = guest.events()
        down = sevlaunch.start("down", "demo", "--timeout", "120")
        seen = [event["event"] for event in events]
        assert finish(down, 200).stdout == "demo: powered down\n"
    assert seen[:1] == ["POWERDOWN"]
    assert "SHUTDOWN" in seen
    nothing_left(sevlaunch)


async def test_one_program_at_a_time_is_attached_and_the_next_one_waits(sevlaunch: Command) -> None:
    sevlaunch("up", PLAIN, *some_qemu())
    attached = asyncio.Event()
    leave = asyncio.Event()

    async def first() -> None:
        async with Guest.attach("plain", root=sevlaunch.runtime):
            attached.set()
            await leave.wait()

    async def second() -> str:
        async with Guest.attach("plain", root=sevlaunch.runtime, limit=60) as guest:
            return await guest.state()

    holding = asyncio.create_task(first())
    await attached.wait()
    with pytest.raises(GuestBusy, match=r"plain was busy for 0\.2 s: another program is attached to it"):
        async with Guest.attach("plain", root=sevlaunch.runtime, limit=0.2):
            pass
    waiting = asyncio.create_task(second())
    done, _ = await asyncio.wait([waiting], timeout=0.1)
    assert not done
    leave.set()
    assert await waiting == "running"
    await holding
    sevlaunch("down", "plain", "--now")


async def test_a_guest_whose_monitor_is_taken_is_busy_and_not_stuck(sevlaunch: Command) -> None:
    sevlaunch("up", PLAIN, *some_qemu())
    folder = find(sevlaunch.runtime, "plain")
    with turn_taken(sevlaunch, COMMANDS_MONITOR):
        shown = await status(folder, turn_limit=0.2)
        assert (shown.state, shown.pid) == ("busy", qemu_pid(folder))
        with pytest.raises(GuestBusy, match="other commands of sevlaunch use its monitor"):
            async with commands_monitor(folder, turn_limit=0.2):
                pass
        # A program that attaches has another monitor.
        async with programs_monitor(folder) as qmp:
            assert (await qmp.execute("query-status"))["running"]
    assert (await status(folder)).state == "running"
    sevlaunch("down", "plain", "--now")


def test_a_command_waits_for_its_turn_and_down_does_too(sevlaunch: Command) -> None:
    sevlaunch("up", PLAIN, *some_qemu())
    with turn_taken(sevlaunch, COMMANDS_MONITOR):
        process = sevlaunch.start("status", "plain", *JSON)
        down = sevlaunch.start("down", "plain", "--timeout", "60")
        launcher = sevlaunch.runtime / "plain/launcher"
        wait_until(lambda: lock_of(launcher, REMOVING) == REMOVING, 30, "the removal")
        assert (process.poll(), down.poll()) == (None, None)
    assert finish(process).json["state"] == "running"
    # It has not given up on the power button: 60 seconds are not over.
    assert down.poll() is None
    down.kill()
    down.communicate()
    sevlaunch("down", "plain", "--now")
    nothing_left(sevlaunch)


async def test_a_qemu_that_stands_still_is_stuck_for_everyone_who_has_the_turn(sevlaunch: Command) -> None:
    pid = sevlaunch("up", PLAIN, *JSON, *some_qemu()).json["pid"]
    folder = find(sevlaunch.runtime, "plain")
    os.kill(pid, signal.SIGSTOP)
    # More than the queue of QEMU's socket takes.
    for _ in range(5):
        with pytest.raises(GuestTimeout, match="it may be stuck") as stuck:
            async with commands_monitor(folder, limit=0.1):
                pass
        assert not isinstance(stuck.value, GuestBusy)
    os.kill(pid, signal.SIGCONT)
    assert (await status(folder)).state == "running"
    sevlaunch("down", "plain", "--now")


async def test_a_guest_that_has_gone_has_no_monitor(sevlaunch: Command) -> None:
    sevlaunch("up", PLAIN, "--paused", *some_qemu())
    folder = find(sevlaunch.runtime, "plain")
    sevlaunch("down", "plain", "--now")
    with pytest.raises(GuestNotFound, match="has gone"):
        async with commands_monitor(folder):
            pass
    assert (await status(folder)).state == "exited"


def test_a_start_and_both_monitors_do_not_stand_in_each_others_way(tmp_path: Path) -> None:
    file = tmp_path / "launcher"
    file.touch()
    fds = [os.open(file, os.O_RDWR) for _ in range(4)]
    try:
        wanted = (STARTING, COMMANDS_MONITOR, PROGRAMS_MONITOR)
        assert all(take(fd, monitor) for fd, monitor in zip(fds, wanted, strict=False))
        for monitor in wanted:
            assert not take(fds[-1], monitor)
            assert held_by_another(fds[-1], monitor) == monitor
        # A removal waits for a start, and can be told from one.
        assert not take(fds[-1], REMOVING)
        assert held_by_another(fds[-1], REMOVING) == STARTING
    finally:
        for fd in fds:
            os.close(fd)


def asked(command: Command) -> list[str]:
    """What the fake was asked, in its order."""
    return fake_log(command).read_text().split()


@pytest.mark.parametrize(
    ("launcher", "how", "last"),
    [
        ("polite", "quit", ["quit"]),
        ("deaf", "terminated", ["quit", "SIGTERM"]),
        ("stubborn", "killed", ["quit", "SIGTERM"]),
    ],
)
def test_down_asks_then_tells_then_kills(launcher: str, how: str, last: list[str], sevlaunch: Command) -> None:
    sevlaunch("up", PLAIN, "--paused", *fake_qemu(sevlaunch, launcher, commands=launcher))
    assert sevlaunch("down", "plain", "--now", *JSON).json == [{"name": "plain", "how": how}]
    assert asked(sevlaunch)[-len(last) :] == last
    nothing_left(sevlaunch)


@pytest.mark.parametrize(("launcher", "last"), [("polite", ["quit"]), ("deaf", ["quit", "SIGTERM"])])
def test_leaving_the_block_of_a_library_asks_then_tells(
    launcher: str, last: list[str], sevlaunch: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, setting = fake_qemu(sevlaunch, launcher)
    for name, value in sevlaunch.environment.items():
        monkeypatch.setenv(name, value)
    binary = setting.partition("=")[2]
    made = sync.plan(sync.Profile.load(PLAIN, overrides=[setting]), sync.Host.probe(binary))
    with sync.launch(made, paused=True) as guest:
        pid = guest.pid
        assert asked(sevlaunch)[-1] not in last
    assert asked(sevlaunch)[-len(last) :] == last
    assert ended(pid)
    nothing_left(sevlaunch)


ODD: list[tuple[str, Any]] = [
    ("odd_status", None),
    ("odd_status", []),
    ("odd_status", {"status": None, "running": "yes"}),
    ("odd_status", {"status": {"a": 1}, "running": True}),
    ("odd_sev", 1),
    ("odd_sev", [[]]),
    ("odd_sev", {"enabled": True}),
    ("odd_sev", {"enabled": "on", "state": [], "policy": "x", "api-major": {}, "api-minor": 1, "build-id": 1}),
]


@pytest.mark.parametrize(("scenario", "answer"), ODD, ids=str)
def test_an_odd_answer_is_a_failure_of_qemu_and_down_ends_it(scenario: str, answer: Any, sevlaunch: Command) -> None:
    sevlaunch("up", PLAIN, "--paused", *fake_qemu(sevlaunch, "polite", commands=scenario, answer=answer))
    for arguments in (("ps",), ("status", "plain"), ("qmp", "plain", "query-status")):
        result = sevlaunch(*arguments, check=None)
        no_traceback(result)
        assert result.code in (0, 5), result
    result = sevlaunch("down", "plain", "--timeout", "5")
    assert result.stdout == "plain: quit\n"
    nothing_left(sevlaunch)


@pytest.mark.parametrize("scenario", ["garbage", "not_a_greeting", "huge_line", "nested", "not_utf_8", "half_answer"])
def test_what_is_no_qmp_is_unresponsive_and_down_ends_it(scenario: str, sevlaunch: Command) -> None:
    sevlaunch("up", PLAIN, "--paused", *fake_qemu(sevlaunch, "polite", commands=scenario))
    assert listed(sevlaunch) == {"plain": "unresponsive"}
    result = sevlaunch("qmp", "plain", "query-status", check=None)
    no_traceback(result)
    assert result.code in (5, 6), result
    no_traceback(sevlaunch("down", "plain", "--timeout", "3"))
    nothing_left(sevlaunch)


@tries(3, 40)
def test_a_start_that_its_launcher_holds_is_starting_whatever_is_there_of_it(count: int, sevlaunch: Command) -> None:
    for _ in range(count):
        process = sevlaunch.start("up", PLAIN, *fake_qemu(sevlaunch, "silent"))
        seen: set[str] = set()
        end = time.monotonic() + 60
        while "starting" not in seen or not ended_or_started(sevlaunch):
            assert time.monotonic() < end and process.poll() is None
            seen |= set(listed(sevlaunch).values())
        assert seen == {"starting"}
        process.send_signal(signal.SIGTERM)
        assert finish(process).code == 130
        nothing_left(sevlaunch)


def ended_or_started(command: Command) -> bool:
    """Whether the start has come to where QEMU is."""
    return bool(command.processes()) and (command.runtime / "plain/guest.json").exists()


def test_status_says_what_a_pasted_guest_does(sevlaunch: Command, system_qemu: str) -> None:
    script = sevlaunch("render", PLAIN).stdout
    pasted = subprocess.Popen(["bash", "-c", script], env=sevlaunch.environment, stdin=subprocess.DEVNULL, cwd="/")
    try:
        wait_until((sevlaunch.runtime / "plain/qemu/commands.sock").exists, 30, "the monitor's socket")
        assert status_of(sevlaunch, "plain")["state"] == "paused"
        assert re.search(r"plain +paused", sevlaunch("ps").stdout)
        sevlaunch("down", "plain", "--now")
        pasted.wait(30)
    finally:
        pasted.kill()
        pasted.wait()
