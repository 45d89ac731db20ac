"""A wait for a guest that can't become ready any more ends at once, and says why."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest

from sevlaunch.api import (
    Guest,
    Host,
    LaunchedGuest,
    Profile,
    QemuError,
    launch,
    parse_condition,
    plan,
    wait_until_ready,
)
from tests.conftest import Command, qemu_binary_of, wait_for_console
from tests.guest.support import PLAIN, fake_qemu, finish, no_traceback, nothing_left, qemu_processes
from tests.guest.test_helpers import WITH_PASST, fake_passt, passt_of
from tests.guest.tiny_firmware import LASTS, options_for, prints, writes_to_port

# Far beyond the time that the test has.
WAITS = ("--wait", "console:never", "--wait-timeout", "3000")
LIMIT = 90
FOREGROUND = pytest.mark.parametrize("foreground", [[], ["--foreground"]], ids=["detached", "foreground"])


def fails(command: Command, *options: str, then: Callable[[], object] | None = None) -> str:
    """What a start says that fails in its wait.

    :param then: what is done once the guest has printed something.
    """
    process = command.start("up", PLAIN, *WAITS, *options)
    if then:
        wait_for_console(command, "plain", "begins", 60)
        then()
    result = finish(process, LIMIT)
    no_traceback(result)
    assert result.code == 5, result
    nothing_left(command, result)
    return result.stderr


def killed(command: Command, find: Callable[[], list[int]], *options: str) -> str:
    """What a start says when a process of it is killed in its wait, or a moment before."""

    def kill() -> None:
        [pid] = find()
        os.kill(pid, signal.SIGKILL)

    code = prints(b"begins\n") + b"\xf4"
    return fails(command, *options_for(command.base, qemu_binary_of("10.0"), code), *options, then=kill)


@FOREGROUND
def test_a_guest_that_panics_is_not_waited_for(foreground: list[str], qemu_binary: str, sevlaunch: Command) -> None:
    # QEMU's docs/specs/pvpanic.rst: bit 0 of port 0x505.
    code = writes_to_port(0x505, 1)
    options = options_for(sevlaunch.base, qemu_binary, code, "-device", "pvpanic", "-action", "panic=pause")
    assert "plain has crashed (guest-panicked)" in fails(sevlaunch, *foreground, *options)


@FOREGROUND
def test_a_guest_whose_panic_ends_qemu_is_not_waited_for(
    foreground: list[str], qemu_binary: str, sevlaunch: Command
) -> None:
    # QEMU's default is panic=shutdown, and its exit code is 0 then.
    code = LASTS + writes_to_port(0x505, 1)
    options = options_for(sevlaunch.base, qemu_binary, code, "-device", "pvpanic")
    assert "plain has crashed (guest-panicked)" in fails(sevlaunch, *foreground, *options)


@FOREGROUND
@pytest.mark.parametrize("state", ["internal-error", "io-error"])
def test_a_guest_that_stops_for_good_is_not_waited_for(state: str, foreground: list[str], sevlaunch: Command) -> None:
    options = fake_qemu(sevlaunch, "stops", answer={"status": state, "running": False})
    assert f"plain has crashed ({state})" in fails(sevlaunch, *foreground, *options)


@FOREGROUND
def test_a_qemu_that_ends_is_not_waited_for(foreground: list[str], qemu_binary: str, sevlaunch: Command) -> None:
    # QEMU's hw/misc/debugexit.c: it ends with twice the value and one.
    code = writes_to_port(0x501, 3)
    options = options_for(sevlaunch.base, qemu_binary, code, "-device", "isa-debug-exit")
    # It may end before the wait has begun.
    assert "exit code 7" in fails(sevlaunch, *foreground, *options)


@FOREGROUND
def test_a_qemu_that_is_killed_is_not_waited_for(foreground: list[str], sevlaunch: Command) -> None:
    said = killed(sevlaunch, partial(qemu_processes, sevlaunch), *foreground)
    assert "QEMU was killed by signal 9" in said


@FOREGROUND
def test_a_guest_without_its_helper_is_not_waited_for(foreground: list[str], sevlaunch: Command) -> None:
    sevlaunch.environment["PATH"] = fake_passt(sevlaunch.base, fails=False)
    said = killed(sevlaunch, lambda: [passt_of(sevlaunch)], *foreground, *WITH_PASST)
    assert "the helper program passt0 ended" in said
    assert "passt: no external interface" in said


async def test_a_program_hears_of_it_too(sevlaunch: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_RUNTIME_DIR", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, sevlaunch.environment[name])
    code = writes_to_port(0x505, 1)
    async with paused(sevlaunch, code, "-action", "panic=pause") as guest, Guest.attach("plain") as other:
        # Both see the crash come, and then that it is there.
        await guest.resume()
        for one in (guest, other, guest, other):
            await not_waited_for(one)
    assert sevlaunch.left_behind() == []


async def test_a_program_hears_of_a_panic_that_ends_qemu(sevlaunch: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_RUNTIME_DIR", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, sevlaunch.environment[name])
    async with paused(sevlaunch, LASTS + writes_to_port(0x505, 1)) as guest, Guest.attach("plain") as other:
        await guest.resume()
        await asyncio.gather(not_waited_for(guest), not_waited_for(other))
    assert sevlaunch.left_behind() == []


@asynccontextmanager
async def paused(command: Command, code: bytes, *extra_args: str) -> AsyncIterator[LaunchedGuest]:
    """A guest with a panic device, before its first instruction; other programs know of it."""
    binary = qemu_binary_of("10.0")
    options = options_for(command.base, binary, code, "-device", "pvpanic", *extra_args)
    profile = Profile.load(PLAIN, overrides=options[1::2])
    async with launch(plan(profile, Host.probe(binary)), paused=True) as guest:
        assert isinstance(guest, LaunchedGuest)
        guest.announce()
        yield guest


async def not_waited_for(guest: Guest) -> None:
    """A wait for something that never comes ends with the guest."""
    with pytest.raises(QemuError, match=r"plain has crashed \(guest-panicked\)"):
        await wait_until_ready(guest, parse_condition("console:never"), limit=3000)


@pytest.mark.parametrize(
    "text", ["console:login: ", "port:::1:22", "port:127.0.0.1:22", "port:22", "vsock:1024", "qga", "ssh", "cloud-init"]
)
def test_a_condition_is_told_as_it_was_written(text: str) -> None:
    assert str(parse_condition(text)) == text
