"""The QEMU guest agent's channel: one JSON object a line, as in QMP."""

from __future__ import annotations

import asyncio
import json
import socket

from sevlaunch.errors import UNEXPECTED_ANSWER, QmpError, UsageError
from sevlaunch.guest.folder import GuestFolder
from sevlaunch.plan.places import AGENT_SOCKET

# The answers that are wanted have some bytes; the guest may send what it likes.
_ANSWER_LIMIT = 1 << 16
_SHOWN = 200


class Agent:
    """The agent in the guest of ``folder``."""

    def __init__(self, folder: GuestFolder) -> None:
        self._folder = folder

    async def ping(self) -> None:
        """Ask, and wait for the answer: QEMU hands the question over as soon as the agent listens.

        :raise UsageError: when the guest has no channel for an agent.
        :raise QmpError: when the agent answers something else.
        """
        reader, writer = await asyncio.open_unix_connection(sock=self._connect(), limit=_ANSWER_LIMIT)
        try:
            writer.write(b'{"execute": "guest-ping"}\n')
            await writer.drain()
            line = await _line(reader)
            if "return" not in _object(line):
                raise QmpError(
                    f"the guest agent of {self._folder.name} answered {line[:_SHOWN]!r} to guest-ping",
                    error_class=UNEXPECTED_ANSWER,
                )
        finally:
            writer.close()

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        try:
            self._folder.connect(connection, AGENT_SOCKET)
            connection.setblocking(False)
        except OSError as error:
            connection.close()
            raise UsageError(
                f"{self._folder.name} has no channel for the guest agent: {error.strerror}",
                hint="set guest_agent: true in its profile",
            ) from error
        except BaseException:
            connection.close()
            raise
        return connection


async def _line(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError as error:
        return error.partial
    except asyncio.LimitOverrunError:
        # It is no answer; the beginning of it is for the message.
        return await reader.read(_SHOWN)


def _object(line: bytes) -> dict[str, object]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
