"""Hostile surroundings of a guest that a program has launched: each has a defined, clean outcome."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import time
from pathlib import Path

import pytest

from sevlaunch import api
from sevlaunch.api import Console, Guest, Host, Process, launch
from sevlaunch.guest.folder import GuestFolder
from sevlaunch.guest.serial import WINDOW
from tests.guest.test_api import children, host, left, small

__all__ = ["host"]


@pytest.fixture
def console(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Console:
    """The console of a guest that is this very process: it lives on."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    log = tmp_path / "state/sevlaunch/flood/one/console.log"
    log.parent.mkdir(parents=True)
    log.touch()
    folder = GuestFolder(tmp_path / "run", "flood")
    process = Process.attach(os.getpid())
    assert process is not None
    return Console(folder, process)


async def test_text_is_found_in_a_flood(console: Console) -> None:
    noise = b"\0\xff garbage \x1b[31m" * (1 << 18)
    console.log.write_bytes(noise + b"login: " + noise)
    found = await console.expect("login: ", limit=30)
    assert found[0] == b"login: "
    assert await console.read() == noise


async def test_a_flood_without_the_text_takes_bounded_memory(console: Console) -> None:
    console.log.write_bytes(b"x" * (8 * WINDOW))
    waiting = asyncio.create_task(console.expect(re.compile(rb"x{3}y"), limit=30))
    await asyncio.sleep(0)
    with console.log.open("ab") as stream:
        stream.write(b"y")
    assert (await waiting)[0][-2:] == b"xy"


async def test_text_that_comes_in_pieces_is_found(console: Console) -> None:
    console.log.write_bytes(b"lo")
    waiting = asyncio.create_task(console.expect("login:", limit=30))
    for piece in (b"g", b"in", b":"):
        await asyncio.sleep(0)
        with console.log.open("ab") as stream:
            stream.write(piece)
    assert (await waiting).group() == b"login:"


async def test_a_clock_that_jumps_changes_nothing(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    jumps = iter(range(1, 1 << 30))
    monkeypatch.setattr(time, "time", lambda: real() + next(jumps) * 86400 * (-1) ** next(jumps))
    async with launch(small(host), limit=60) as guest:
        assert await guest.state() == "running"
        assert not await guest.powerdown(limit=0.3)
    assert left(host) == []


async def test_the_runtime_folder_is_deleted_under_the_guest(host: Host) -> None:
    async with launch(small(host)) as guest:
        shutil.rmtree(guest.folder)
        assert await guest.state() == "running"
        with pytest.raises(api.GuestNotFound):
            async with Guest.attach("small"):
                pass
    assert (left(host), children()) == ([], [])


async def test_a_qemu_that_stands_still_answers_nothing_and_still_ends_with_the_block(host: Host) -> None:
    async with launch(small(host), paused=True) as guest:
        os.kill(guest.pid, signal.SIGSTOP)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await guest.state()
        # What was cancelled is no half-read answer for the next one.
        os.kill(guest.pid, signal.SIGCONT)
        assert await guest.qmp("query-name") == {"name": "small"}
        os.kill(guest.pid, signal.SIGSTOP)
    assert (left(host), children()) == ([], [])


async def test_a_qemu_that_dies_ends_every_wait(host: Host) -> None:
    async with launch(small(host), paused=True) as guest:
        waits = [
            asyncio.ensure_future(guest.wait()),
            asyncio.ensure_future(guest.console.expect("never", limit=60)),
            asyncio.ensure_future(guest.while_alive(asyncio.sleep(600))),
        ]
        await asyncio.sleep(0)
        os.kill(guest.pid, signal.SIGKILL)
        results = await asyncio.gather(*waits, return_exceptions=True)
        assert results[0] is None
        assert isinstance(results[1], api.SevlaunchError)
        assert isinstance(results[2], api.QemuError)
        with pytest.raises(api.QmpError):
            await guest.state()
    assert (left(host), children()) == ([], [])


async def test_a_pid_that_was_reused_is_not_touched() -> None:
    stranger = os.getpid()
    assert Process.attach(stranger, start_time=1) is None
