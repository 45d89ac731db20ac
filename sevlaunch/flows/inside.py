"""Working in a guest that runs, and waiting for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from shlex import quote
from typing import Any

from sevlaunch.errors import GuestEnded, GuestTimeout
from sevlaunch.guest.agent import Agent
from sevlaunch.guest.agent_programs import ProgramEnd, run_program
from sevlaunch.guest.alive import while_alive
from sevlaunch.guest.folder import GuestFolder, find
from sevlaunch.guest.guest import Guest
from sevlaunch.guest.life import qemu_pid
from sevlaunch.guest.process import Process
from sevlaunch.guest.readiness import READY_LIMIT, Condition, wait_until_ready
from sevlaunch.guest.ssh import Way, find_way
from sevlaunch.host.folders import runtime_folder


async def run_in_guest(
    name: str, command: Sequence[str], *, root: Path | None = None, given: bytes = b"", limit: float | None = None
) -> ProgramEnd:
    """Run a program in a guest through the QEMU guest agent, and wait for its end.

    :param root: the folder of all guests; default: the user's runtime folder.
    :param given: what the program reads from its standard input.
    :param limit: seconds; a program that takes longer is left running, for the agent can't end it.
    :raise GuestNotFound: when there is no such guest; GuestEnded when it does not run any more.
    :raise UsageError: when the guest has no channel for an agent.
    :raise QmpError: when the agent refuses the program, or answers what is no answer.
    :raise GuestTimeout: when no agent answers, or the program does not end, within the limit.
    """
    folder = find(root or runtime_folder(), name)
    async with _process_of(folder) as process:
        try:
            async with asyncio.timeout(limit):
                return await while_alive(run_program(Agent(folder), command, given=given), process, folder)
        except TimeoutError as error:
            raise GuestTimeout(
                f"{command[0]} in {name} had not ended after {limit:g} s: it may still run there",
                hint="does an agent run in the guest? `sevlaunch wait NAME qga` waits for one",
            ) from error


def way_into(name: str, *, root: Path | None = None, user: str | None = None, key: Path | None = None) -> Way:
    """How a guest that runs is reached by SSH.

    :param user: another one than its first boot has made.
    :param key: the file of another private key.
    :raise GuestNotFound: when there is no such guest; GuestEnded when it does not run any more.
    :raise UsageError: when there is no way to an SSH server in it.
    """
    folder = find(root or runtime_folder(), name)
    record = folder.record()
    if record is None or qemu_pid(folder) is None:
        raise _ended(folder)
    return find_way(record, folder.path, user=user, key=key)


async def wait_for(
    name: str, conditions: Sequence[Condition], *, root: Path | None = None, limit: float = READY_LIMIT
) -> None:
    """Wait until a guest that runs has reached each condition, one after the other.

    :param limit: seconds for each.
    :raise GuestTimeout: when one is not reached within ``limit``.
    :raise SevlaunchError: when there is no such guest, or it ends before.
    """
    async with Guest.attach(name, root=root) as guest:
        for condition in conditions:
            await wait_until_ready(guest, condition, limit=limit)


async def wait_for_end(name: str, *, root: Path | None = None, limit: float | None = None) -> None:
    """Wait until a guest has ended.

    :raise GuestNotFound: when there is none of that name, as when it ended before.
    :raise GuestTimeout: when it runs on after ``limit`` seconds.
    """
    folder = find(root or runtime_folder(), name)
    async with _process_of(folder) as process:
        try:
            async with asyncio.timeout(limit):
                await process.wait()
        except TimeoutError as error:
            raise GuestTimeout(
                f"{name} still runs after {limit:g} s", hint=f"to end it: sevlaunch down {quote(name)}"
            ) from error


async def follow_events(name: str, *, root: Path | None = None) -> AsyncGenerator[dict[str, Any], None]:
    """QMP's events of a guest from this call on, until it ends; meanwhile no other program can attach to it.

    :raise GuestBusy: when another program is attached all the time.
    """
    async with Guest.attach(name, root=root) as guest:
        async for event in guest.events():
            yield event


@asynccontextmanager
async def _process_of(folder: GuestFolder) -> AsyncIterator[Process]:
    pid = qemu_pid(folder)
    process = Process.attach(pid) if pid else None
    if process is None:
        raise _ended(folder)
    try:
        yield process
    finally:
        process.close()


def _ended(folder: GuestFolder) -> GuestEnded:
    name = folder.name
    return GuestEnded(f"the guest {name!r} does not run any more", hint=f"its output: sevlaunch logs {quote(name)}")
