"""The library: launch, attach, console, events, cancellation, and that nothing is left of it."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import random
import re
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from sevlaunch import api, sync
from sevlaunch.api import Guest, Host, LaunchedGuest, Plan, Process, Profile, launch, plan, render, spawn
from sevlaunch.guest.folder import guests
from tests.conftest import PROFILES, ROOT, wait_until
from tests.guest.support import FAKE_QEMU, tries

SMALL = {"name": "small", "security": "none", "accel": "tcg", "memory": "64M", "console": "serial"}


@pytest.fixture
def host(base: Path, system_qemu: str, monkeypatch: pytest.MonkeyPatch) -> Host:
    """This machine, with folders of its own."""
    for variable, name in (("XDG_RUNTIME_DIR", "run"), ("XDG_STATE_HOME", "state")):
        folder = base / name
        folder.mkdir(mode=0o700, exist_ok=True)
        monkeypatch.setenv(variable, str(folder))
    found = Host.probe()
    assert found.qemu
    return found


def small(host: Host, name: str = "small", **changes: Any) -> Plan:
    """A guest that starts fast."""
    return plan(Profile.from_dict({**SMALL, "name": name, **changes}), host)


def with_fake_qemu(scenario: str, base: Path, host: Host, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """A guest whose QEMU plays a scenario of fake_qemu.py."""
    assert host.qemu
    variables = {"FAKE_QEMU": scenario, "FAKE_LOG": str(base / "asked"), "REAL_QEMU": host.qemu.binary}
    for variable, value in {**variables, "XDG_CACHE_HOME": str(base / "cache")}.items():
        monkeypatch.setenv(variable, value)
    return small(Host.probe(str(FAKE_QEMU)))


def left(host: Host) -> list[str]:
    """Guests' folders that are still there."""
    return [folder.name for folder in guests(Path(host.folders.runtime))]


def open_files() -> int:
    """How many file descriptors this process has."""
    gc.collect()
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def link_of(pid: int, fd: int) -> str:
    """What a process has open under ``fd``."""
    return str(Path(f"/proc/{pid}/fd/{fd}").readlink())


def arguments_of(pid: int) -> list[bytes]:
    """A process' command line; the last one is empty."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")


def children() -> list[int]:
    """This process' children, also those that are not reaped."""
    return [int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()]


async def test_a_guest_is_asked_paused_resumed_and_ended(host: Host) -> None:
    async with launch(small(host), paused=True) as guest:
        assert isinstance(guest, Guest)
        assert (guest.name, await guest.state()) == ("small", "paused")
        assert (await guest.sev_info()).enabled is False
        assert await guest.launch_measurement() is None
        assert (await guest.evidence()).pid == guest.pid
        events = guest.events()
        await guest.resume()
        assert (await anext(events))["event"] == "RESUME"
        await guest.pause()
        assert await guest.state() == "paused"
        assert await guest.qmp("query-name") == {"name": "small"}
        with pytest.raises(api.QmpError, match="query-nothing"):
            await guest.qmp("query-nothing")
        process = guest.pid
    assert left(host) == []
    assert process not in children()


async def test_another_program_attaches_and_a_detached_guest_lives_on(host: Host) -> None:
    async with launch(small(host)) as guest:
        guest.detach()
    async with Guest.attach("small") as again:
        assert await again.state() == "running"
        assert again.folder == Path(host.folders.runtime) / "small"
        with pytest.raises(api.QmpError, match="SEV"):
            await again.inject_secret("AAAA", "AAAA")
        await again.qmp("quit")
        await again.wait()
    with pytest.raises(api.GuestNotFound, match="does not run"):
        async with Guest.attach("small"):
            pass
    with pytest.raises(api.GuestNotFound, match="no guest 'nobody' is known"):
        async with Guest.attach("nobody"):
            pass


async def test_an_error_in_the_block_ends_the_guest(host: Host) -> None:
    with pytest.raises(RuntimeError, match="mine"):
        async with launch(small(host)):
            raise RuntimeError("mine")
    assert left(host) == []


@pytest.mark.parametrize(("scenario", "asked"), [("polite", []), ("deaf", ["SIGTERM"]), ("stubborn", ["SIGTERM"])])
async def test_leaving_the_block_quits_then_terminates_then_kills(
    scenario: str, asked: list[str], base: Path, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    guests_plan = with_fake_qemu(scenario, base, host, monkeypatch)
    async with launch(guests_plan, paused=True):
        pass
    assert (base / "asked").read_text().split()[-1 - len(asked) :] == ["quit", *asked]
    assert (left(host), children()) == ([], [])


def test_an_interruption_takes_a_guest_down_before_it_is_raised(
    base: Path, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_ANSWER", '{"status": "running", "running": true}')
    guests_plan = with_fake_qemu("powers_down", base, host, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        sync.stay(guests_plan, launched=lambda _: os.kill(os.getpid(), signal.SIGINT))
    assert (base / "asked").read_text().split()[-1] == "system_powerdown"
    assert (left(host), children()) == ([], [])


async def test_the_console_says_what_it_expected_and_what_came(host: Host) -> None:
    async with launch(small(host)) as guest:
        with pytest.raises(api.GuestTimeout, match="did not print b'never' within"):
            await guest.console.expect("never", limit=0.2)
        waiting = asyncio.ensure_future(guest.console.expect(re.compile(rb"ne[v]er"), limit=30))
        await asyncio.sleep(0)
        await guest.qmp("quit")
        with pytest.raises(api.SevlaunchError, match="ended before it printed"):
            await waiting


async def test_a_linux_answers_on_its_console(host: Host, demo: Path) -> None:
    async with launch(plan(Profile.load(demo), host)) as guest:
        await guest.console.expect("demo: ready", limit=180)
        await guest.console.read()
        await guest.console.send("echo 6 times 7 is $((6 * 7))\n")
        found = await guest.console.expect(re.compile(rb"is (\d+)\s"), limit=60)
        assert found[1] == b"42"
        assert await guest.powerdown(limit=60)
    assert left(host) == []


async def test_an_embedder_brings_its_own_folder_spawner_arguments_and_files(host: Host, base: Path) -> None:
    own = base / "own"
    started: list[list[str]] = []

    def spawner(argv: Sequence[str], *, log: int, **options: Any) -> Process:
        started.append(list(argv))
        return spawn(argv, log=log, **options)

    reader, writer = os.pipe()
    try:
        there = Host.probe(runtime=own)
        async with launch(small(there), paused=True, spawner=spawner, inherit=[writer]) as guest:
            assert guest.folder == own / "small"
            assert link_of(guest.pid, writer).startswith("pipe:")
        async with launch(small(there), paused=True, extra_args=["-device", "pvpanic"]) as guest:
            assert arguments_of(guest.pid)[-3:-1] == [b"-device", b"pvpanic"]
    finally:
        os.close(reader)
        os.close(writer)
    assert [argv[0] for argv in started] == [render(small(there))[0]]


def test_profiles_come_from_files_text_and_dicts(tmp_path: Path) -> None:
    assert Profile.load(str(PROFILES / "plain.yaml")).profile.name == "plain"
    assert Profile.loads("memory: 1G", overrides=["cpus=3"]).profile.cpu.count == 3
    with pytest.raises(api.ProfileError) as refused:
        Profile.from_dict({"memory": "1G", "cpuss": 3, "disks": [{"pth": "x"}]})
    assert len(refused.value.problems) >= 2


def test_the_same_without_asyncio(host: Host) -> None:
    before = threading.active_count()
    with sync.launch(small(host), paused=True) as guest:
        assert (guest.name, guest.state()) == ("small", "paused")
        with sync.attach("small") as again:
            events = again.events()
            guest.resume()
            assert next(events)["event"] == "RESUME"
            again.qmp("quit")
            assert [event["event"] for event in events][-1] == "SHUTDOWN"
            with pytest.raises(api.UsageError, match="attached to, not launched"):
                again.detach()
        with pytest.raises(api.SevlaunchError, match="ended before it printed"):
            guest.console.expect("never")
    assert left(host) == []
    assert threading.active_count() == before


@tries(12, 300)
async def test_cancelled_at_any_moment_nothing_is_left(count: int, host: Host) -> None:
    async def whole(guests_plan: Plan) -> None:
        async with launch(guests_plan) as guest:
            await guest.pause()
            await guest.resume()

    clock = asyncio.get_running_loop().time
    # The first one imports what the others need.
    await whole(small(host))
    start = clock()
    await whole(small(host))
    usual = clock() - start
    files, tasks = open_files(), len(asyncio.all_tasks())
    for _ in range(count):
        task = asyncio.create_task(whole(small(host)))
        await asyncio.wait([task], timeout=random.random() * usual)
        task.cancel()
        # It may have been through already.
        with suppress(asyncio.CancelledError):
            await task
        assert left(host) == []
        assert children() == []
        assert len(asyncio.all_tasks()) == tasks
    assert open_files() == files


async def test_cancelled_while_qemu_says_nothing_nothing_is_left(
    base: Path, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    guests_plan = with_fake_qemu("silent", base, host, monkeypatch)

    async def whole() -> None:
        async with launch(guests_plan):
            pytest.fail("nobody said that it runs")

    task = asyncio.create_task(whole())
    await asyncio.to_thread(wait_until, children, 30, "a QEMU")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (left(host), children()) == ([], [])


@tries(5, 50)
async def test_many_guests_in_one_process_collide_nowhere(count: int, host: Host) -> None:
    files, tasks = open_files(), len(asyncio.all_tasks())

    async def one(number: int) -> int:
        async with launch(small(host, f"many-{number}"), paused=True) as guest:
            await ready.wait()
            return guest.pid

    ready = asyncio.Barrier(count)
    pids = await asyncio.gather(*(one(number) for number in range(count)))
    assert len(set(pids)) == count
    assert (left(host), children()) == ([], [])
    assert (open_files(), len(asyncio.all_tasks())) == (files, tasks)


@tries(5, 1000)
async def test_cycles_leave_no_growth(count: int, host: Host) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    one = small(host)
    for _ in range(3):
        async with launch(one, paused=True):
            pass
    files, memory = open_files(), resident()
    for _ in range(count):
        async with launch(one, paused=True):
            pass
    assert (open_files(), left(host), children()) == (files, [], [])
    # Python's own heap breathes; a leak of a guest's objects would be some 100 KiB a cycle.
    assert resident() - memory < max(8 << 20, count << 13)


def test_the_public_names_are_pinned() -> None:
    assert sorted(api.__all__) == (ROOT / "tests/guest/public-names.txt").read_text().split()
    methods = {
        name for name, _ in inspect.getmembers(LaunchedGuest) if not name.startswith("_") and name != "announced"
    }
    assert methods >= {"attach", "console", "detach", "events", "evidence", "inject_secret", "launch_measurement"}
    assert methods >= {"pause", "powerdown", "qmp", "resume", "sev_info", "state", "wait"}


@pytest.fixture(autouse=True)
def _nothing_runs_on(base: Path) -> Iterator[None]:
    """A test that fails leaves a guest perhaps: it ends with the test."""
    yield
    for pid in children():
        # What keeps the console's log ends with QEMU by itself, and is waited for.
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, 9)
            os.waitpid(pid, 0)
