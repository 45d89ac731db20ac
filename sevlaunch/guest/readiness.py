"""When is a guest ready? Conditions for ``up --wait``, and for programs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from sevlaunch.errors import GuestTimeout, UsageError

if TYPE_CHECKING:
    # `up` imports this before QEMU starts, and the rest while it does.
    from sevlaunch.guest.guest import Guest

READY_LIMIT = 120.0
_MOST_DIGITS = 10
FORMS = "console:TEXT, port:HOST:PORT, port:GUESTPORT, vsock:PORT, qga, ssh or cloud-init"


class Condition(Protocol):
    """Something that a guest has to have reached; as a text, it is what :func:`parse_condition` reads."""

    async def reached(self, guest: Guest) -> None:
        """Wait until it is so."""


def parse_condition(text: str) -> Condition:
    """The condition that ``text`` says: console:TEXT, port:HOST:PORT, port:GUESTPORT, vsock:PORT, qga, ssh, cloud-init.

    :raise UsageError: when it is none.
    """
    from sevlaunch.guest.conditions import AgentAnswers, ConsolePrints, ForwardOpens, PortOpens, VsockOpens

    kind, _, rest = text.partition(":")
    host, _, port = rest.rpartition(":")
    if kind == "console" and rest:
        return ConsolePrints(rest)
    if kind == "port" and host and _is_port(port):
        return PortOpens(host.strip("[]"), int(port))
    if kind == "port" and _is_port(rest):
        return ForwardOpens(int(rest))
    if kind == "vsock" and _is_number(rest, 1 << 32):
        return VsockOpens(int(rest))
    if text == "qga":
        return AgentAnswers()
    if text in ("ssh", "cloud-init"):
        from sevlaunch.guest.login import CloudInitDone, SshAnswers

        return SshAnswers() if text == "ssh" else CloudInitDone()
    raise UsageError(f"wanted {FORMS}, found {text!r}", hint="for example: --wait console:login:")


async def wait_until_ready(guest: Guest, condition: Condition, *, limit: float = READY_LIMIT) -> None:
    """Wait until ``condition`` is reached.

    :raise GuestTimeout: when it is not within ``limit`` seconds; the error shows the end of the console.
    :raise QemuError: when the guest ends or crashes before, at once; or a helper program that was started with it ends.
    :raise SevlaunchError: when it can never be reached.
    """
    try:
        async with asyncio.timeout(limit):
            await guest.while_sound(condition.reached(guest))
    except TimeoutError as error:
        raise GuestTimeout(
            f"{guest.name} was not ready within {limit:g} s: {condition}"
            + (f": {guest.obstacle}" if guest.obstacle else ""),
            hint=f"its console says last:\n{guest.console.end()}",
        ) from error


def _is_port(text: str) -> bool:
    return _is_number(text, 1 << 16) and int(text) > 0


def _is_number(text: str, limit: int) -> bool:
    # Python refuses to read numbers of more than some thousand digits.
    return text.isdecimal() and len(text) <= _MOST_DIGITS and int(text) < limit
