"""A guest as a service: staying until it ends, starting it anew when it reboots, telling systemd how it is."""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from collections.abc import Callable

from sevlaunch.errors import HostError, QemuError
from sevlaunch.guest.guest import LaunchedGuest
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
                hint=f"look at its console: sevlaunch up --paused, then sevlaunch console {name}; or on_reboot: stop",
            )


async def stay(
    plan: Plan,
    *,
    paused: bool = False,
    limit: float | None = None,
    launched: Callable[[LaunchedGuest], None] = lambda _: None,
    rebooted: Callable[[], None] = lambda: None,
) -> str:
    """Start the guest and stay until it ends; where its plan says so, start it anew when it reboots.

    :param paused: leave it before its first instruction.
    :param limit: seconds for each start.
    :param launched: called after each launch; other programs may take the guest down by then.
    :param rebooted: called when it is about to be started anew.
    :return: the reason of the end, as :meth:`LaunchedGuest.until_end`.
    :raise QemuError: when it reboots again and again.
    :raise SevlaunchError: as :func:`sevlaunch.guest.launch.launch`.
    """
    reboots = RebootLimit()
    while True:
        async with launch(plan, paused=paused, limit=limit) as guest:
            guest.announce()
            launched(guest)
            reason = await guest.until_end()
        if reason != "guest-reset" or plan.reboot.value != "relaunch":
            return reason
        reboots.count(plan.name)
        rebooted()
