"""Conditions that show from outside of a guest: what it prints, and where it answers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from msgspec import Struct

from sevlaunch.errors import UsageError
from sevlaunch.guest.user_network import accepts
from sevlaunch.ports import EVERY_ADDRESS
from sevlaunch.profile.network_rules import LOOPBACK

if TYPE_CHECKING:
    from sevlaunch.guest.guest import Guest

# Between two attempts to connect: nobody tells when a port opens.
ATTEMPT_INTERVAL = 0.1
# User-mode networks accept every connection, and hang up when the guest refuses it. QEMU's own tells whether the guest
# has accepted it; passt does not.
STAYS_OPEN = 0.3
# How often a connection is looked at before another one is tried: QEMU's network asks a guest that was not there yet
# again in intervals that grow, and at once for a new connection.
_LOOKS = 5


class ConsolePrints(Struct, frozen=True):
    """The guest prints ``text`` on its console."""

    text: str

    def __str__(self) -> str:
        return f"console:{self.text}"

    async def reached(self, guest: Guest) -> None:
        """Wait for the text."""
        await guest.console.expect(self.text, limit=float("inf"))


class PortOpens(Struct, frozen=True):
    """Somebody listens on a TCP port, as a forwarded port of the guest."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"port:{self.host}:{self.port}"

    async def reached(self, guest: Guest) -> None:
        """Connect until it works, and the guest has accepted it where QEMU's user-mode network forwards the port."""

        async def accepted() -> bool | None:
            text = await guest.qmp("human-monitor-command", command_line="info usernet")
            return accepts(str(text), self.port)

        await _connects(lambda: socket.socket(_family(self.host)), (self.host, self.port), accepted)


class ForwardOpens(Struct, frozen=True):
    """Somebody in the guest listens on a TCP port of it that a port of the host leads to."""

    guest_port: int

    def __str__(self) -> str:
        return f"port:{self.guest_port}"

    async def reached(self, guest: Guest) -> None:
        """Connect until it works.

        :raise UsageError: when no port of the host leads there.
        """
        for forward in guest.forwards:
            if (forward.protocol, forward.guest_port) == ("tcp", self.guest_port):
                host = LOOPBACK if forward.host == EVERY_ADDRESS else forward.host
                await PortOpens(host, forward.port).reached(guest)
                return
        raise UsageError(
            f"no port of this host leads to the TCP port {self.guest_port} of {guest.name}",
            hint=f'set networks: [{{type: user, forward: ["tcp:127.0.0.1:0:{self.guest_port}"]}}] in its profile',
        )


class VsockOpens(Struct, frozen=True):
    """Somebody in the guest listens on a vsock port."""

    port: int

    def __str__(self) -> str:
        return f"vsock:{self.port}"

    async def reached(self, guest: Guest) -> None:
        """Connect until it works.

        :raise UsageError: when the guest has no vsock.
        """
        cid = guest.vsock_cid
        if cid is None:
            raise UsageError(f"{guest.name} has no vsock", hint="set vsock: auto in its profile")
        await _connects(lambda: socket.socket(socket.AF_VSOCK), (cid, self.port))


class AgentAnswers(Struct, frozen=True):
    """The QEMU guest agent answers."""

    def __str__(self) -> str:
        return "qga"

    async def reached(self, guest: Guest) -> None:
        """Ask until it does.

        :raise UsageError: when the guest has no channel for it.
        """
        await guest.agent.ping()


async def _nobody_knows() -> None:
    return None


async def _connects(
    new_socket: Callable[[], socket.socket],
    address: tuple[object, ...],
    accepted: Callable[[], Awaitable[bool | None]] = _nobody_knows,
) -> None:
    """Connect until the other end is there.

    :param accepted: whether it has accepted a connection; None where that can't be told.
    """
    while not await _attempt(new_socket, address, accepted):  # noqa: ASYNC110 - nobody sends an event
        await asyncio.sleep(ATTEMPT_INTERVAL)


async def _attempt(
    new_socket: Callable[[], socket.socket],
    address: tuple[object, ...],
    accepted: Callable[[], Awaitable[bool | None]],
) -> bool:
    loop = asyncio.get_running_loop()
    with new_socket() as connection:
        connection.setblocking(False)
        try:
            await loop.sock_connect(connection, address)
            for _ in range(_LOOKS):
                if not await _stays_open(connection):
                    return False
                if await accepted() is not False:
                    return True
        except OSError:
            return False
    return False


async def _stays_open(connection: socket.socket) -> bool:
    """Whether the other end does not hang up for a while."""
    try:
        async with asyncio.timeout(STAYS_OPEN):
            return bool(await asyncio.get_running_loop().sock_recv(connection, 1))
    except TimeoutError:
        return True


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
