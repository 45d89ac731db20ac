"""Taking guests down: the power button, then QMP quit, then SIGKILL."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from sevlaunch.errors import SevlaunchError
from sevlaunch.guest import folder as folders
from sevlaunch.guest.commands import STATUS_LIMIT
from sevlaunch.guest.folder import GuestFolder, find, hold_launcher
from sevlaunch.guest.guest import POWERDOWN_LIMIT, press_power_button
from sevlaunch.guest.process import Process
from sevlaunch.guest.qmp import session

QUIT_LIMIT = 10.0


class TakenDown(Struct, frozen=True):
    """What became of one of several guests: ``how`` it ended, as :func:`take_down` says it, or an error."""

    name: str
    how: str | None
    error: SevlaunchError | None = None


async def take_down_many(
    root: Path, names: Sequence[str], *, now: bool = False, limit: float = POWERDOWN_LIMIT
) -> list[TakenDown]:
    """Take guests down at the same time, each as :func:`take_down`; what became of each, in their order."""

    async def one_down(name: str) -> TakenDown:
        try:
            return TakenDown(name, await take_down(root, name, now=now, limit=limit))
        except SevlaunchError as error:
            return TakenDown(name, None, error)

    return await asyncio.gather(*(one_down(name) for name in names))


async def take_down(root: Path, name: str, *, now: bool = False, limit: float = POWERDOWN_LIMIT) -> str:
    """End a guest and remove its runtime folder: ACPI power-down, then QMP quit, then SIGKILL.

    :param now: no power-down: the guest is not asked.
    :param limit: seconds that the guest's OS has for the power-down.
    :return: how it ended: ``powered down``, ``quit``, ``killed``, or ``had ended already``.
    :raise GuestNotFound: when there is none.
    :raise NameTaken: when another command is starting it or taking it down.
    """
    folder = find(root, name)
    with hold_launcher(folder):
        record = folder.record()
        pid = folder.pid()
        process = Process.attach(pid) if pid else None
        how = "had ended already"
        if process:
            try:
                how = await _end(folder, process, now=now, limit=limit)
            finally:
                process.close()
        for companion, start_time in record.companions if record else []:
            beside = Process.attach(companion, start_time)
            if beside:
                # They end by themselves when QEMU hangs up; this is for those that don't.
                if not await beside.ends_within(QUIT_LIMIT):
                    beside.kill()
                beside.close()
        folder.remove()
    return how


async def _end(folder: GuestFolder, process: Process, *, now: bool, limit: float) -> str:
    if not now and await _power_down(folder, process, limit):
        return "powered down"
    if await _quit(folder, process):
        return "quit"
    process.kill()
    return "killed"


async def _power_down(folder: GuestFolder, process: Process, limit: float) -> bool:
    end = time.monotonic() + limit
    try:
        async with session(folder.file(folders.QMP_SOCKET), limit=min(limit, STATUS_LIMIT)) as qmp:
            status = await qmp.execute("query-status", limit=min(limit, STATUS_LIMIT))
            # A guest that executes nothing can't hear the power button.
            if not status["running"]:
                return False
            return await press_power_button(qmp, process, limit=end - time.monotonic())
    except SevlaunchError:
        # QEMU hangs up when it ends.
        return await process.ends_within(max(0.0, min(end - time.monotonic(), STATUS_LIMIT)))


async def _quit(folder: GuestFolder, process: Process) -> bool:
    asked = False
    try:
        async with asyncio.timeout(QUIT_LIMIT), session(folder.file(folders.QMP_SOCKET), limit=QUIT_LIMIT) as qmp:
            asked = True
            await qmp.execute("quit")
    except TimeoutError:
        asked = False
    except SevlaunchError:
        # QEMU may hang up before its answer arrives: whether it ended is what counts.
        pass
    return await process.ends_within(QUIT_LIMIT if asked else 1.0)
