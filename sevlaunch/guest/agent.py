"""The QEMU guest agent's channel: one JSON object a line, as in QMP."""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sevlaunch.errors import UNEXPECTED_ANSWER, QmpError, UsageError
from sevlaunch.guest.folder import GuestFolder
from sevlaunch.plan.places import AGENT_SOCKET

# Most answers have some bytes; the guest may send what it likes.
ANSWER_BYTES = 1 << 16
_SHOWN = 200
# qga/main.c: the agent sends it before its answer to guest-sync-delimited, and drops what it had read where it gets it.
_DELIMITER = b"\xff"
# qga/qapi-schema.json: the id of guest-sync-delimited is an int.
_MOST_ID = (1 << 63) - 1


class Agent:
    """The agent in the guest of ``folder``."""

    def __init__(self, folder: GuestFolder) -> None:
        self._folder = folder

    @property
    def there(self) -> bool:
        """Whether the guest has a channel for an agent; nobody need listen there."""
        with self._folder.qemu_folder() as folder:
            return folder.has(AGENT_SOCKET)

    async def ping(self) -> None:
        """Ask, and wait for the answer: QEMU hands the question over as soon as the agent listens.

        :raise UsageError: when the guest has no channel for an agent.
        :raise QmpError: when the agent answers something else.
        """
        async with self._connected(ANSWER_BYTES) as channel:
            await channel.send({"execute": "guest-ping"})
            await channel.answer("guest-ping")

    @asynccontextmanager
    async def talk(self, answer_bytes: int = ANSWER_BYTES) -> AsyncIterator[Channel]:
        """A channel on which nothing is left of what an earlier client asked, whose answers may be that long.

        :raise UsageError: when the guest has no channel for an agent.
        :raise QmpError: when what answers is no agent.
        """
        async with self._connected(answer_bytes) as channel:
            await channel.synchronize()
            yield channel

    @asynccontextmanager
    async def _connected(self, answer_bytes: int) -> AsyncIterator[Channel]:
        reader, writer = await asyncio.open_unix_connection(sock=self._connect(), limit=answer_bytes)
        try:
            yield Channel(self._folder.name, reader, writer)
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


class Channel:
    """Questions to an agent, one after the other."""

    def __init__(self, guest: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._guest = guest
        self._reader = reader
        self._writer = writer

    async def execute(self, command: str, **arguments: Any) -> Any:
        """What the agent returns for a command of qga/qapi-schema.json; dashes in names are underscores here.

        :raise QmpError: when it refuses it, or answers what is no answer.
        """
        named = {key.replace("_", "-"): value for key, value in arguments.items()}
        await self.send({"execute": command, "arguments": named})
        return await self.answer(command)

    async def synchronize(self) -> None:
        """Pass over what was asked before, and by others.

        :raise QmpError: when what answers is no agent.
        """
        number = secrets.randbelow(_MOST_ID)
        await self.send({"execute": "guest-sync-delimited", "arguments": {"id": number}}, before=_DELIMITER)
        while True:
            await self._past_delimiter()
            if await self.answer("guest-sync-delimited") == number:
                return

    async def send(self, question: dict[str, Any], *, before: bytes = b"") -> None:
        """Ask.

        :raise QmpError: when the channel is closed.
        """
        try:
            self._writer.write(before + json.dumps(question).encode() + b"\n")
            await self._writer.drain()
        except OSError as error:
            raise self._hung_up(error) from error

    def _hung_up(self, error: OSError) -> QmpError:
        # Without a class, as for QMP: QEMU hangs up before it ends.
        return QmpError(f"the channel to the guest agent of {self._guest} was closed: {error}")

    async def answer(self, command: str) -> Any:
        """The answer to ``command``.

        :raise QmpError: when it is none, or a refusal.
        """
        line = await self._line()
        found = _object(line)
        error = found.get("error")
        if isinstance(error, dict) and isinstance(error.get("desc"), str):
            raise QmpError(
                f"the guest agent of {self._guest} refused {command}: {error['desc'][:_SHOWN]!r}",
                error_class=str(error.get("class"))[:_SHOWN],
            )
        if "return" not in found:
            raise QmpError(
                f"the guest agent of {self._guest} answered {line[:_SHOWN]!r} to {command}",
                error_class=UNEXPECTED_ANSWER,
            )
        return found["return"]

    async def _past_delimiter(self) -> None:
        while True:
            try:
                await self._reader.readuntil(_DELIMITER)
                return
            except OSError as error:
                raise self._hung_up(error) from error
            except asyncio.LimitOverrunError as error:
                await self._reader.readexactly(error.consumed)
            except asyncio.IncompleteReadError as error:
                raise QmpError(
                    f"the guest agent of {self._guest} answered {error.partial[:_SHOWN]!r} to guest-sync-delimited",
                    error_class=UNEXPECTED_ANSWER,
                ) from error

    async def _line(self) -> bytes:
        try:
            return await self._reader.readuntil(b"\n")
        except OSError as error:
            raise self._hung_up(error) from error
        except asyncio.IncompleteReadError as error:
            return error.partial
        except asyncio.LimitOverrunError:
            # It is no answer; the beginning of it is for the message.
            return await self._reader.read(_SHOWN)


def _object(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
