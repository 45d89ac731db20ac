"""Plan -> running guest. Whatever happens on the way, either the guest runs or nothing of it is left."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from sevlaunch.errors import GuestTimeout, Problem
from sevlaunch.guest import folder as folders
from sevlaunch.guest.diagnosis import hint_for
from sevlaunch.guest.folder import GuestFolder, claim_lock, hold_launcher
from sevlaunch.guest.preflight import check_files
from sevlaunch.guest.process import Process, spawn, tail
from sevlaunch.guest.starting import Embedding, Spawner, Start
from sevlaunch.plan import Plan

if TYPE_CHECKING:
    from sevlaunch.guest.live import LaunchedGuest

# Time for QEMU to be ready: a start, and filling a GiB of memory takes well under a second.
START_LIMIT = 60.0
SECONDS_PER_GIB = 1.0


@asynccontextmanager
async def launch(
    plan: Plan,
    *,
    paused: bool = False,
    limit: float | None = None,
    spawner: Spawner = spawn,
    extra_args: Sequence[str] = (),
    inherit: Sequence[int] = (),
) -> AsyncIterator[LaunchedGuest]:
    """Start a guest; leaving the block ends it, unless it was detached.

    :param paused: leave it before its first instruction.
    :param limit: seconds for the start as a whole; default: a minute, and more with much memory.
    :param spawner: what starts QEMU, and the processes beside it.
    :param extra_args: further arguments for QEMU, as they are.
    :param inherit: further file descriptors for QEMU, under the same numbers.
    :raise HostError: when a file is missing, or the runtime folder can't be written.
    :raise NameTaken: when a guest of that name runs, or is being started.
    :raise QemuError: when QEMU fails; the error has the end of its output.
    :raise GuestTimeout: when it is not ready within ``limit``.
    """
    check_files(plan)
    folder = GuestFolder(plan.folder.parent, plan.name)
    seconds = START_LIMIT + SECONDS_PER_GIB * (plan.memory.size.value >> 30) if limit is None else limit
    with ExitStack() as launcher, ExitStack() as cleanup:
        launcher.enter_context(hold_launcher(folder))
        _clear_abandoned(folder)
        lock = claim_lock(folder)
        cleanup.callback(os.close, lock)
        # From here on the folder is ours, and goes unless the guest stays.
        folder.clear()
        start = Start(plan, folder, launcher, lock, Embedding(spawner, tuple(extra_args), tuple(inherit)))
        cleanup.callback(start.end)
        async with AsyncExitStack() as connection:
            try:
                async with asyncio.timeout(seconds):
                    await start.begin(connection)
                    connection.callback(start.guest.console.close)
                    if not paused:
                        await start.run()
            except TimeoutError as error:
                lines = tail(folder.file(folders.QEMU_LOG))
                raise GuestTimeout(
                    f"{plan.name} was not ready within {seconds:g} s",
                    problems=[Problem(f"qemu: {line}") for line in lines],
                    hint=hint_for(lines) or "give it longer with --timeout",
                ) from error
            yield start.guest


def _clear_abandoned(folder: GuestFolder) -> None:
    """End what a launcher left behind that was killed in the middle of a start. Needs :func:`hold_launcher`.

    :raise NameTaken: when a guest lives there that `render --format shell` started: it does not hold the lock.
    """
    record = folder.record()
    if record is not None and record.launched:
        return
    pid = folder.pid()
    if pid and not folders.lock_is_held(folder.file(folders.LOCK)):
        raise folders.taken(folder)
    process = Process.attach(pid) if pid else None
    if process:
        process.kill()
        process.close()
    for companion, start_time in record.companions if record else []:
        beside = Process.attach(companion, start_time)
        if beside:
            beside.kill()
            beside.close()
