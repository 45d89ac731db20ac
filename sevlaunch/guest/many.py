"""Many guests at once: each starts, and fails, by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from msgspec import Struct

from sevlaunch.errors import SevlaunchError
from sevlaunch.guest.launch import finish, launch
from sevlaunch.guest.starting import Start
from sevlaunch.plan.plan import Plan

if TYPE_CHECKING:
    from sevlaunch.guest.guest import LaunchedGuest


class Outcome(Struct, frozen=True):
    """What became of a plan: a guest, or an error."""

    plan: Plan
    guest: LaunchedGuest | None = None
    error: SevlaunchError | None = None


@asynccontextmanager
async def launch_many(
    plans: Sequence[Plan],
    begun: Start | None = None,
    *,
    paused: bool = False,
    limit: float | None = None,
    prepare: Callable[[LaunchedGuest], Awaitable[None]] | None = None,
) -> AsyncIterator[list[Outcome]]:
    """Start guests at the same time; leaving the block ends those that were not detached.

    :param begun: the start of the one guest that there is, as far as it has come.
    :param paused: as for :func:`sevlaunch.guest.launch.launch`; ``limit``, too, for each guest.
    :param prepare: what else a guest has to go through; it is ended when this raises.
    :return: an outcome for each plan, in their order.
    """
    leave = asyncio.Event()
    loop = asyncio.get_running_loop()
    outcomes: list[asyncio.Future[Outcome]] = [loop.create_future() for _ in plans]

    async def hold(plan: Plan, outcome: asyncio.Future[Outcome]) -> None:
        try:
            starting = finish(begun, paused=paused, limit=limit) if begun else launch(plan, paused=paused, limit=limit)
            async with starting as guest:
                if prepare:
                    await prepare(guest)
                outcome.set_result(Outcome(plan, guest=guest))
                await leave.wait()
        except SevlaunchError as error:
            if outcome.done():
                raise
            outcome.set_result(Outcome(plan, error=error))
        except Exception as error:
            # Nobody expected it: the whole ends with it.
            if not outcome.done():
                outcome.set_exception(error)
            raise

    tasks = [asyncio.create_task(hold(plan, outcome)) for plan, outcome in zip(plans, outcomes, strict=True)]
    try:
        yield list(await asyncio.gather(*outcomes))
    finally:
        leave.set()
        for task, outcome in zip(tasks, outcomes, strict=True):
            if not outcome.done() or outcome.cancelled():
                task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended
