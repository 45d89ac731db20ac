"""When is a guest ready? Conditions for ``up --wait``, and for programs."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from sevlaunch.errors import GuestTimeout, UsageError
from sevlaunch.guest.user_network import accepts

if TYPE_CHECKING:
    # `up` imports this before QEMU starts, and the rest while it does.
    from sevlaunch.guest.guest import Guest

READY_LIMIT = 120.0
# Between two attempts to connect: nobody tells when a port opens.
ATTEMPT_INTERVAL = 0.1
# User-mode networks accept every connection, and hang up when the guest refuses it. QEMU's own tells whether the guest
# has accepted it; passt does not.
STAYS_OPEN = 0.3
_MOST_DIGITS = 10
FORMS = "console:TEXT, port:HOST:PORT, vsock:PORT or qga"


class Condition(Protocol):
    """Something that a guest has to have reached."""

    async def reached(self, guest: Guest) -> None:
        """Wait until it is so."""


class ConsolePrints(Struct, frozen=True):
    """The guest prints ``text`` on its console."""

    text: str

    async def reached(self, guest: Guest) -> None:
        """Wait for the text."""
        await guest.console.expect(self.text, limit=float("inf"))


class PortOpens(Struct, frozen=True):
    """Somebody listens on a TCP port, as a forwarded port of the guest."""

    host: str
    port: int

    async def reached(self, guest: Guest) -> None:
        """Connect until it works, and the guest has accepted it where QEMU's user-mode network forwards the port."""

        async def accepted() -> bool | None:
            text = await guest.qmp("human-monitor-command", command_line="info usernet")
            return accepts(str(text), self.port)

        await _connects(lambda: socket.socket(_family(self.host)), (self.host, self.port), accepted)


class VsockOpens(Struct, frozen=True):
    """Somebody in the guest listens on a vsock port."""

    port: int

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

    async def reached(self, guest: Guest) -> None:
        """Ask until it does.

        :raise UsageError: when the guest has no channel for it.
        """
        await guest.agent.ping()


def parse_condition(text: str) -> Condition:
    """The condition that ``text`` says: console:TEXT, port:HOST:PORT, vsock:PORT or qga.

    :raise UsageError: when it is none.
    """
    kind, _, rest = text.partition(":")
    host, _, port = rest.rpartition(":")
    if kind == "console" and rest:
        return ConsolePrints(rest)
    if kind == "port" and host and _is_port(port):
        return PortOpens(host.strip("[]"), int(port))
    if kind == "vsock" and _is_number(rest, 1 << 32):
        return VsockOpens(int(rest))
    if text == "qga":
        return AgentAnswers()
    raise UsageError(f"wanted {FORMS}, found {text!r}", hint="for example: --wait console:login:")


async def wait_until_ready(guest: Guest, condition: Condition, *, limit: float = READY_LIMIT) -> None:
    """Wait until ``condition`` is reached.

    :raise GuestTimeout: when it is not within ``limit`` seconds; the error shows the end of the console.
    :raise SevlaunchError: when the guest ends before.
    """
    try:
        async with asyncio.timeout(limit):
            await guest.while_alive(condition.reached(guest))
    except TimeoutError as error:
        raise GuestTimeout(
            f"{guest.name} was not ready within {limit:g} s: {condition}",
            hint=f"its console says last:\n{guest.console.end()}",
        ) from error


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
            while await _stays_open(connection):
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


def _is_port(text: str) -> bool:
    return _is_number(text, 1 << 16) and int(text) > 0


def _is_number(text: str, limit: int) -> bool:
    # Python refuses to read numbers of more than some thousand digits.
    return text.isdecimal() and len(text) <= _MOST_DIGITS and int(text) < limit
