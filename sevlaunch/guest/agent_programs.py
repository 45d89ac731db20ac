"""Programs that the guest agent runs in the guest: guest-exec and guest-exec-status of qga/qapi-schema.json."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
from msgspec import Struct

from sevlaunch.errors import UNEXPECTED_ANSWER, QmpError
from sevlaunch.guest.agent import Agent, Channel

# qga/commands.c: GUEST_EXEC_MAX_OUTPUT is 16 MiB for each of the two streams, and they come in one line as base64.
_LONGEST_OUTPUT = 2 * ((16 << 20) * 4 // 3) + (1 << 16)
# Between two looks at a program: the agent sends no event when it ends.
_FIRST_LOOK, _LONGEST_PAUSE = 0.02, 0.5


class _Started(Struct):
    pid: int


class _ExecStatus(Struct, rename="kebab"):
    exited: bool
    exitcode: int | None = None
    signal: int | None = None
    out_data: str = ""
    err_data: str = ""
    out_truncated: bool = False
    err_truncated: bool = False


class ProgramEnd(Struct, frozen=True):
    """How a program ended in the guest.

    ``exit_code`` is None when the signal ``signal`` ended it; each output is at most 16 MiB, and what
    came after that is lost when ``truncated``.
    """

    exit_code: int | None
    signal: int | None
    stdout: bytes
    stderr: bytes
    truncated: bool


async def run_program(agent: Agent, command: Sequence[str], *, given: bytes = b"") -> ProgramEnd:
    """Run a program in the guest as its agent does: as root, in no shell, found on the agent's PATH.

    :param given: what the program reads from its standard input.
    :raise UsageError: when the guest has no channel for an agent.
    :raise QmpError: when the agent refuses it, as where there is no such program.
    """
    async with agent.talk(_LONGEST_OUTPUT) as channel:
        arguments: dict[str, Any] = {"path": command[0], "arg": list(command[1:]), "capture_output": True}
        if given:
            arguments["input_data"] = base64.b64encode(given).decode()
        with _expected("guest-exec"):
            pid = msgspec.convert(await channel.execute("guest-exec", **arguments), _Started).pid
        with _expected("guest-exec-status"):
            status = await _end_of(channel, pid)
            return ProgramEnd(
                exit_code=status.exitcode,
                signal=status.signal,
                stdout=base64.b64decode(status.out_data, validate=True),
                stderr=base64.b64decode(status.err_data, validate=True),
                truncated=status.out_truncated or status.err_truncated,
            )


async def _end_of(channel: Channel, pid: int) -> _ExecStatus:
    pause = _FIRST_LOOK
    while True:
        status = msgspec.convert(await channel.execute("guest-exec-status", pid=pid), _ExecStatus)
        if status.exited:
            return status
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


@contextmanager
def _expected(command: str) -> Iterator[None]:
    """What is no answer of an agent is the guest's fault, and said as such."""
    try:
        yield
    # ValueError: what should be base64 is not.
    except (msgspec.ValidationError, ValueError) as error:
        raise QmpError(f"the guest agent's answer to {command}: {error}", error_class=UNEXPECTED_ANSWER) from error
