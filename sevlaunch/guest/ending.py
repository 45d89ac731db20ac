"""The end of a QEMU: its guest is asked, then QEMU is asked, then told, then killed; each within a limit."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any

from sevlaunch.errors import GuestTimeout, QmpError, SevlaunchError
from sevlaunch.guest.evidence import is_running
from sevlaunch.guest.folder import GuestFolder
from sevlaunch.guest.monitor import commands_monitor
from sevlaunch.guest.process import DEATH_LIMIT, TERMINATE_LIMIT, Process

POWERDOWN_LIMIT = 60.0
BUTTON_INTERVAL = 5.0
QUIT_LIMIT = 10.0
# A QEMU that says nothing for this long, on a monitor that is ours alone, is stuck.
ANSWER_LIMIT = 15.0

# Has QEMU execute a QMP command, which may take some seconds; what it returns.
Ask = Callable[[str, float], Awaitable[Any]]


def asking(folder: GuestFolder) -> Ask:
    """The way to ask the QEMU of a guest that another program started: the monitor of sevlaunch's commands."""

    async def ask(command: str, seconds: float) -> Any:
        answer_limit = min(seconds, ANSWER_LIMIT)
        async with commands_monitor(folder, turn_limit=seconds, limit=answer_limit) as qmp:
            return await qmp.execute(command, limit=answer_limit)

    return ask


async def end_guest(ask: Ask, process: Process, *, now: bool, limit: float) -> str:
    """End a guest.

    :param process: its QEMU.
    :param now: the guest is not asked.
    :param limit: seconds that the guest's system has to power down.
    :return: how it ended: ``powered down``, ``quit``, ``terminated`` (by SIGTERM) or ``killed``.
    """
    if not now and await _powers_down(ask, process, limit):
        return "powered down"
    return await end_qemu(ask, process)


async def _powers_down(ask: Ask, process: Process, limit: float) -> bool:
    end = time.monotonic() + limit
    try:
        # A guest that executes nothing can't hear the power button.
        if not is_running(await ask("query-status", limit)):
            return False
        return await press_power_button(ask, process, limit=end - time.monotonic())
    except SevlaunchError:
        # QEMU hangs up when it ends; with a QEMU that is stuck, or answers something odd, this way is at its end.
        return await process.ends_within(max(0.0, min(end - time.monotonic(), DEATH_LIMIT)))


async def press_power_button(ask: Ask, process: Process, *, limit: float) -> bool:
    """Press the power button until QEMU ends; whether it did within ``limit`` seconds."""
    end = time.monotonic() + limit
    heard = False
    while (left := end - time.monotonic()) > 0:
        # A system that is still booting does not hear the button: it is pressed again.
        try:
            await ask("system_powerdown", left)
            heard = True
        except QmpError as error:
            # QEMU hangs up when it ends.
            if error.error_class:
                raise
        except GuestTimeout:
            if not heard:
                raise
        if await process.ends_within(max(0.0, min(end - time.monotonic(), BUTTON_INTERVAL))):
            return True
    return process.ended


async def end_qemu(ask: Ask, process: Process) -> str:
    """End QEMU: QMP's ``quit``, then SIGTERM, then SIGKILL.

    :return: which of them it was: ``quit``, ``terminated`` or ``killed``.
    """
    end = time.monotonic() + QUIT_LIMIT
    try:
        async with asyncio.timeout(QUIT_LIMIT):
            await ask("quit", QUIT_LIMIT)
    except (SevlaunchError, TimeoutError):
        # QEMU may hang up before its answer arrives, or may not answer at all: whether it ended is what counts.
        end = min(end, time.monotonic() + 1.0)
    if await process.ends_within(max(0.0, end - time.monotonic())):
        return "quit"
    process.signal(signal.SIGTERM)
    if await process.ends_within(TERMINATE_LIMIT):
        return "terminated"
    process.kill()
    return "killed"
