"""Doing something with a guest for as long as its QEMU lives."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from sevlaunch.errors import QemuError, QmpError
from sevlaunch.guest.diagnosis import hint_for
from sevlaunch.guest.folder import GuestFolder
from sevlaunch.guest.process import DEATH_LIMIT, Process

T = TypeVar("T")


async def while_alive(
    action: Awaitable[T],
    process: Process,
    folder: GuestFolder,
    death: Callable[[], Awaitable[QemuError]] | None = None,
) -> T:
    """The result of ``action``, which is cancelled when ``process``, the QEMU, ends before.

    :param folder: the guest's runtime folder, with QEMU's output.
    :param death: makes the error for the end of QEMU; default: one that says no more than that.
    :raise QemuError: when QEMU ends; at once, and also when all that ``action`` saw of it is a lost connection.
    """

    async def ended() -> QemuError:
        return await death() if death else QemuError(f"{folder.name} has ended", stderr=folder.log_tail())

    task = asyncio.ensure_future(action)
    end = asyncio.create_task(process.wait())
    try:
        await asyncio.wait([task, end], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise await ended()
        error = task.exception()
        if isinstance(error, QmpError):
            if not error.error_class and await process.ends_within(DEATH_LIMIT):
                raise await ended() from error
            error.stderr = tuple(folder.log_tail())
            error.hint = error.hint or hint_for(error.stderr)
        return task.result()
    finally:
        for pending in (task, end):
            pending.cancel()
        await asyncio.gather(task, end, return_exceptions=True)


async def unless(action: Awaitable[T], *troubles: Awaitable[None]) -> T:
    """The result of ``action``, which is cancelled when one of ``troubles`` raises before: that is raised here."""
    task = asyncio.ensure_future(action)
    watches = [asyncio.ensure_future(trouble) for trouble in troubles]
    waiting = {task, *watches}
    try:
        while not task.done():
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for watch in done - {task}:
                watch.result()
        return task.result()
    finally:
        for pending in (task, *watches):
            pending.cancel()
        await asyncio.gather(task, *watches, return_exceptions=True)
