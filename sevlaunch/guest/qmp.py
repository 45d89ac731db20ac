"""QMP through the qemu.qmp package, with limits, and errors that tell what happened to QEMU."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from qemu.qmp import EventListener, ExecuteError, QMPClient, QMPError, Runstate

from sevlaunch.errors import GuestTimeout, QmpError
from sevlaunch.guest.diagnosis import hint_for
from sevlaunch.guest.process import Process

COMMAND_LIMIT = 30.0
CONNECT_LIMIT = 10.0
MESSAGE_LENGTH = 300
# After QEMU has ended.
LAST_EVENT = 0.1


class Qmp:
    """A QMP session with one QEMU."""

    def __init__(self, client: QMPClient) -> None:
        self._client = client

    async def execute(
        self, command: str, arguments: dict[str, Any] | None = None, *, limit: float = COMMAND_LIMIT
    ) -> Any:
        """What QEMU returns for ``command``.

        :raise QmpError: when QEMU answers with an error, or not in QMP, or is gone.
        :raise GuestTimeout: when it does not answer within ``limit`` seconds.
        """
        try:
            async with asyncio.timeout(limit):
                return await self._client.execute(command, arguments)
        except ExecuteError as error:
            message = f"QEMU refuses {command}: {error}"
            raise QmpError(message, error_class=error.error_class, hint=hint_for([message])) from error
        except QMPError as error:
            raise QmpError(f"lost QEMU during {command}: {_short(error)}") from error
        except TimeoutError as error:
            raise GuestTimeout(
                f"QEMU did not answer {command} within {limit:g} s", hint="it may be stuck: `sevlaunch down --now`"
            ) from error

    def events(self, process: Process) -> AsyncIterator[dict[str, Any]]:
        """QMP's events from this call on, until ``process``, the QEMU, has ended."""
        listener = EventListener()
        self._client.register_listener(listener)
        return self._follow(listener, process)

    async def _follow(self, listener: EventListener, process: Process) -> AsyncIterator[dict[str, Any]]:
        end = asyncio.create_task(process.wait())
        try:
            while True:
                event = asyncio.create_task(listener.get())
                try:
                    await asyncio.wait([event, end], return_when=asyncio.FIRST_COMPLETED)
                    # What QEMU sent last may still be on its way.
                    if not event.done() and not (await asyncio.wait([event], timeout=LAST_EVENT))[0]:
                        return
                    yield dict(event.result())
                finally:
                    event.cancel()
        finally:
            end.cancel()
            self._client.remove_listener(listener)

    async def close(self) -> None:
        """End the session; QEMU lives on."""
        try:
            await self._client.disconnect()
        except (QMPError, OSError, EOFError):
            # disconnect() reports what ended the connection before: that was raised where it mattered.
            return


@asynccontextmanager
async def session(where: Path | socket.socket, *, limit: float = CONNECT_LIMIT) -> AsyncIterator[Qmp]:
    """A session over a socket's path, or a connected socket.

    :raise QmpError: when nobody answers there, or not in QMP.
    :raise GuestTimeout: when the greeting does not come within ``limit`` seconds (another client may be connected).
    """
    client = QMPClient()
    qmp = Qmp(client)
    try:
        async with asyncio.timeout(limit):
            await client.connect(str(where) if isinstance(where, Path) else where)
    except TimeoutError as error:
        await qmp.close()
        raise GuestTimeout(
            f"QEMU did not greet within {limit:g} s",
            hint="another QMP client may be connected, or QEMU may be stuck: `sevlaunch down --now`",
        ) from error
    except (QMPError, OSError) as error:
        await qmp.close()
        raise QmpError(f"can't talk QMP to QEMU: {_short(error)}") from error
    except AssertionError as error:
        # What qemu.qmp asserts at the end is no longer so when QEMU hung up after its last word of the negotiation.
        if client.runstate == Runstate.RUNNING:
            raise
        await qmp.close()
        raise QmpError("can't talk QMP to QEMU: it hung up") from error
    try:
        yield qmp
    finally:
        await qmp.close()


def _short(error: Exception) -> str:
    """One line of an error, which may quote a whole message of the other side."""
    text = " ".join(str(error).split())
    return text if len(text) <= MESSAGE_LENGTH else f"{text[:MESSAGE_LENGTH]}..."
