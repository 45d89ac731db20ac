"""The QEMU guest agent's channel: one JSON object a line, as in QMP."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from sevlaunch.errors import QmpError, UsageError


class Agent:
    """The agent behind the socket ``path``."""

    def __init__(self, name: str, path: Path) -> None:
        self._name = name
        self._path = path

    async def ping(self) -> None:
        """Ask, and wait for the answer: QEMU hands the question over as soon as the agent listens.

        :raise UsageError: when the guest has no channel for an agent.
        :raise QmpError: when the agent answers something else.
        """
        try:
            reader, writer = await asyncio.open_unix_connection(self._path)
        except OSError as error:
            raise UsageError(
                f"{self._name} has no channel for the guest agent: {error.strerror}",
                hint="set guest_agent: true in its profile",
            ) from error
        try:
            writer.write(b'{"execute": "guest-ping"}\n')
            await writer.drain()
            line = await reader.readline()
            if "return" not in _object(line):
                raise QmpError(f"the guest agent of {self._name} answered {line[:200]!r} to guest-ping")
        finally:
            writer.close()


def _object(line: bytes) -> dict[str, object]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
