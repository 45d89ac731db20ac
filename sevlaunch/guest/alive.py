"""Doing something with a guest for as long as its QEMU lives."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from sevlaunch.errors import QemuError, QmpError
from sevlaunch.guest.diagnosis import hint_for
from sevlaunch.guest.process import DEATH_LIMIT, Process

T = TypeVar("T")


async def while_alive(action: Awaitable[T], process: Process, death: Callable[[], QemuError]) -> T:
    """The result of ``action``, which is cancelled when ``process``, the QEMU, ends before.

    :param death: makes the error for that, with the end of QEMU's output.
    :raise QemuError: when QEMU ends; at once, and also when all that ``action`` saw of it is a lost connection.
    """
    task = asyncio.ensure_future(action)
    end = asyncio.create_task(process.wait())
    try:
        await asyncio.wait([task, end], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise death()
        error = task.exception()
        if isinstance(error, QmpError):
            if not error.error_class and await process.ends_within(DEATH_LIMIT):
                raise death() from error
            error.stderr = death().stderr
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
