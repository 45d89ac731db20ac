"""A guest as a service: staying until it ends, starting it anew when it reboots, telling systemd how it is."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections import deque
from collections.abc import Callable
from shlex import quote

from sevlaunch.errors import HostError, QemuError
from sevlaunch.evidence import Evidence
from sevlaunch.flows.start_options import StartOptions
from sevlaunch.guest.launch import launch
from sevlaunch.plan.plan import Plan

# A guest that reboots more often than this within the time is in a loop: it fails on its way up.
REBOOTS = 5
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


class RebootLimit:
    """Counts the reboots of a guest that each time is started anew."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._times: deque[float] = deque()

    def count(self, name: str) -> None:
        """Note one more.

        :raise QemuError: when there were too many.
        """
        now = self._clock()
        self._times.append(now)
        while self._times[0] < now - WITHIN_SECONDS:
            self._times.popleft()
        if len(self._times) > REBOOTS:
            raise QemuError(
                f"{name} rebooted {len(self._times)} times within {WITHIN_SECONDS:g} s: it is not started anew",
                hint=f"look at its console: sevlaunch up --paused, then sevlaunch console {quote(name)}; "
                "or on_reboot: stop",
            )


async def stay(
    plan: Plan,
    options: StartOptions = StartOptions(),  # noqa: B008 - it can't be changed
    *,
    launched: Callable[[Evidence], None] = lambda _: None,
    rebooted: Callable[[], None] = lambda: None,
) -> str:
    """Start the guest and stay until it ends; where its plan says so, start it anew when it reboots.

    :param options: what each start has to go through.
    :param launched: gets what each launch showed; other programs may take the guest down by then.
    :param rebooted: called when it is about to be started anew.
    :return: the reason of the end, as :meth:`LaunchedGuest.until_end`.
    :raise QemuError: when it reboots again and again.
    :raise SevlaunchError: as :func:`sevlaunch.guest.launch.launch`, and when a start does not reach what it has to.
    """
    reboots = RebootLimit()
    while True:
        async with launch(plan, paused=options.launched_paused, limit=options.limit) as guest:
            # From here on, or an end during what follows would not be heard.
            end = asyncio.create_task(guest.until_end())
            try:
                await options.reached_by(guest)
                guest.announce()
                launched(guest.launch_evidence)
                reason = await end
            finally:
                end.cancel()
                await asyncio.gather(end, return_exceptions=True)
        if reason != "guest-reset" or plan.reboot.value != "relaunch":
            return reason
        reboots.count(plan.name)
        rebooted()
