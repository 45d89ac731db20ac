"""A guest as a service: staying until it ends, starting it anew when it reboots, telling systemd how it is."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections import deque
from collections.abc import Callable
from shlex import quote
from typing import TYPE_CHECKING

from msgspec.structs import replace

from sevlaunch.errors import HostError, QemuError
from sevlaunch.evidence import Ended, Evidence
from sevlaunch.flows.start_options import StartOptions
from sevlaunch.guest.embedding import Embedding
from sevlaunch.guest.ending import POWERDOWN_LIMIT
from sevlaunch.guest.handed import Opened
from sevlaunch.guest.launch import finish
from sevlaunch.guest.outcome import describe
from sevlaunch.guest.starting import started
from sevlaunch.plan.plan import Plan

if TYPE_CHECKING:
    from sevlaunch.guest.guest import LaunchedGuest

# A guest that is started anew more often than this within the time is in a loop: it fails on its way up.
RELAUNCHES = 5
WITHIN_SECONDS = 300.0


def notify_service(state: str) -> None:
    """Tell the service manager that started us: sd_notify(3). Without one, nothing happens.

    :param state: lines such as ``READY=1``.
    :raise HostError: when the manager that is there can't be told.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    # A socket in the abstract namespace is written with an @.
    target = "\0" + address[1:] if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.sendto(state.encode(), target)
    except OSError as error:
        raise HostError(
            f"can't tell the service manager at {address}: {error.strerror}", hint="unset NOTIFY_SOCKET"
        ) from error


class RelaunchLimit:
    """Counts how often a guest is started anew."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._times: deque[float] = deque()

    def count(self, name: str, what: str) -> None:
        """Note one more.

        :param what: why, such as ``rebooted``.
        :raise QemuError: when there were too many.
        """
        now = self._clock()
        self._times.append(now)
        while self._times[0] < now - WITHIN_SECONDS:
            self._times.popleft()
        if len(self._times) > RELAUNCHES:
            raise QemuError(
                f"{name} {what} {len(self._times)} times within {WITHIN_SECONDS:g} s: it is not started anew",
                hint=f"look at its console: sevlaunch up --paused, then sevlaunch console {quote(name)}; "
                "or on_reboot: stop, on_crash: stop",
            )


async def stay(
    plan: Plan,
    options: StartOptions = StartOptions(),  # noqa: B008 - it can't be changed
    *,
    launched: Callable[[Evidence], None] = lambda _: None,
    told: Callable[[str], None] = lambda _: None,
    down_limit: float = POWERDOWN_LIMIT,
) -> Ended:
    """Start the guest and stay until it ends; where its plan says so, start it anew when it reboots or crashes.

    Once it is launched, a cancellation takes it down as `sevlaunch down` does, and is over with that: what is returned
    says how it ended. A second one ends it at once, and is raised.

    :param options: what each start has to go through.
    :param launched: gets what each launch showed; other programs may take the guest down by then.
    :param told: gets what becomes of the guest, as the rest of a sentence about it.
    :param down_limit: seconds that the guest's system has to power down when it is taken down.
    :return: how it ended.
    :raise QemuError: when it or its QEMU crashed, which its folder then tells; when it is started anew too often.
    :raise SevlaunchError: as :func:`sevlaunch.guest.launch.launch`, and when a start does not reach what it has to.
    """
    relaunches = RelaunchLimit()
    # What a guest has written before it rebooted is there afterwards.
    with Opened() as disks:
        while True:
            with started(plan, Embedding(disks=disks)) as start:
                async with finish(start, paused=options.launched_paused, limit=options.limit) as guest:
                    ended = await _stay_with(guest, plan, options, launched, told, down_limit)
                    if not ended.wanted:
                        # QEMU may still be there.
                        await guest.end()
                        guest.leave(ended)
                        if plan.crash.value != "relaunch":
                            raise guest.failure(ended)
            if ended.wanted and (ended.how != "rebooted" or plan.reboot.value != "relaunch"):
                return ended
            what = "rebooted" if ended.wanted else "crashed"
            relaunches.count(plan.name, what)
            told(f"{what}: starting it anew")
            plan = replace(plan, fresh=False)


async def _stay_with(
    guest: LaunchedGuest,
    plan: Plan,
    options: StartOptions,
    launched: Callable[[Evidence], None],
    told: Callable[[str], None],
    down_limit: float,
) -> Ended:
    end = asyncio.create_task(guest.until_end())
    try:
        await options.reached_by(guest)
        guest.note_start(options.started(foreground=True))
        guest.announce()
        launched(guest.launch_evidence)
        while True:
            await asyncio.wait([end])
            ended = end.result()
            if ended.how != "crashed" or plan.crash.value != "keep":
                return ended
            told(f"{describe(ended)}: it is left as it is")
            end = asyncio.create_task(guest.until_end())
    except asyncio.CancelledError:
        _forget_cancellation()
        told("is taken down")
        try:
            how = await guest.take_down(limit=down_limit)
        except asyncio.CancelledError:
            guest.end_at_once()
            raise
        return Ended("taken-down", None, None) if how == "killed" else await end
    finally:
        end.cancel()
        await asyncio.gather(end, return_exceptions=True)


def _forget_cancellation() -> None:
    """A cancellation is dealt with: limits of time that are set from here on are none of its business."""
    task = asyncio.current_task()
    if task:
        task.uncancel()
