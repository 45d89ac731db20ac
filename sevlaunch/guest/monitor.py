"""The one way to QMP: a guest's monitors, through the qemu.qmp package, with limits.

A monitor of QEMU serves one client at a time and lets all others wait without a word. QEMU therefore has three of them,
and a lock goes with each that is not one process's own::

    launcher   a socket pair, the launcher's own from QEMU's start on
    commands   sevlaunch's commands, one after the other
    programs   one program that attaches, for as long as it likes

Whoever finds a monitor taken waits, with a limit (:class:`~sevlaunch.errors.GuestBusy`). A QEMU that says nothing on a
monitor whose lock is ours is stuck (:class:`~sevlaunch.errors.GuestTimeout`): nobody else can be the reason.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from typing import Any

from qemu.qmp import EventListener, ExecuteError, QMPClient, QMPError, Runstate

from sevlaunch.errors import GuestBusy, GuestTimeout, QmpError
from sevlaunch.guest.diagnosis import hint_for
from sevlaunch.guest.folder import GuestFolder
from sevlaunch.guest.locks import COMMANDS_MONITOR, PROGRAMS_MONITOR, Range, take
from sevlaunch.guest.process import Process
from sevlaunch.opening import too_few_descriptors
from sevlaunch.plan.places import COMMANDS_SOCKET, PROGRAMS_SOCKET

COMMAND_LIMIT = 30.0
CONNECT_LIMIT = 10.0
# Longer than any one command of sevlaunch may have the monitor.
COMMANDS_TURN_LIMIT = COMMAND_LIMIT + CONNECT_LIMIT + 5.0
PROGRAMS_TURN_LIMIT = 10.0
# Between two looks at what is taken: neither a lock nor a full queue of a socket tells when it is free.
LOOK_INTERVAL = 0.01
MESSAGE_LENGTH = 300
# After QEMU has ended.
LAST_EVENT = 0.1
# What qemu.qmp raises for bytes that are no QMP: its own errors, Python's for JSON that is nested too deeply, and for
# what is no UTF-8.
_NO_QMP = (QMPError, RecursionError, UnicodeDecodeError)


class Qmp:
    """A QMP session with one QEMU."""

    def __init__(self, client: QMPClient) -> None:
        self._client = client
        # From the first word on: what came before somebody listens would not be heard.
        self._shutdowns = EventListener(names=("SHUTDOWN",))
        client.register_listener(self._shutdowns)

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
        except _NO_QMP as error:
            raise QmpError(f"lost QEMU during {command}: {_short(error)}") from error
        except TimeoutError as error:
            raise GuestTimeout(
                f"QEMU did not answer {command} within {limit:g} s", hint="it may be stuck: `sevlaunch down --now`"
            ) from error

    def events(self, process: Process, names: Collection[str] = ()) -> AsyncIterator[dict[str, Any]]:
        """QMP's events from this call on, until ``process``, the QEMU, has ended.

        :param names: those that are wanted; default: all.
        """
        listener = EventListener(names=names or None)
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

    async def shutdown_reason(self) -> str:
        """The reason of the last SHUTDOWN event of a QEMU that has ended; empty where it said none."""
        if not self._shutdowns.history:
            # What QEMU sent last may still be on its way.
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_EVENT):
                    await self._shutdowns.get()
        said = self._shutdowns.history
        data = dict(said[-1]).get("data") if said else None
        return str(data.get("reason", "")) if isinstance(data, dict) else ""

    async def close(self) -> None:
        """End the session; QEMU lives on."""
        try:
            await self._client.disconnect()
        except (*_NO_QMP, OSError, EOFError):
            # disconnect() reports what ended the connection before: that was raised where it mattered.
            return


@asynccontextmanager
async def session(connection: socket.socket, *, limit: float = CONNECT_LIMIT) -> AsyncIterator[Qmp]:
    """A session over a connected socket, which is closed with it.

    :raise QmpError: when nobody answers there, or not in QMP.
    :raise GuestTimeout: when the greeting does not come within ``limit`` seconds.
    """
    client = QMPClient()
    qmp = Qmp(client)
    try:
        async with asyncio.timeout(limit):
            await client.connect(connection)
    except TimeoutError as error:
        await qmp.close()
        raise GuestTimeout(
            f"QEMU did not greet within {limit:g} s", hint="it may be stuck: `sevlaunch down --now`"
        ) from error
    except (*_NO_QMP, OSError) as error:
        await qmp.close()
        _check_descriptors(error)
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


@asynccontextmanager
async def commands_monitor(
    folder: GuestFolder, *, turn_limit: float = COMMANDS_TURN_LIMIT, limit: float = CONNECT_LIMIT
) -> AsyncIterator[Qmp]:
    """A session with a guest through the monitor of sevlaunch's commands, for a question or two: others wait for it.

    :param turn_limit: seconds that other commands may keep it.
    :param limit: seconds that QEMU may take to greet.
    :raise GuestBusy: when other commands kept it.
    :raise QmpError: when nobody listens there, or not in QMP.
    :raise GuestTimeout: when QEMU does not greet: it is stuck.
    """
    async with (
        _turn(folder, COMMANDS_MONITOR, turn_limit, "other commands of sevlaunch use its monitor"),
        _session_at(folder, COMMANDS_SOCKET, limit) as qmp,
    ):
        yield qmp


@asynccontextmanager
async def programs_monitor(
    folder: GuestFolder, *, turn_limit: float = PROGRAMS_TURN_LIMIT, limit: float = CONNECT_LIMIT
) -> AsyncIterator[Qmp]:
    """A session with a guest through the monitor of programs, for as long as wanted; as :func:`commands_monitor`."""
    async with (
        _turn(folder, PROGRAMS_MONITOR, turn_limit, "another program is attached to it"),
        _session_at(folder, PROGRAMS_SOCKET, limit) as qmp,
    ):
        yield qmp


@asynccontextmanager
async def _turn(folder: GuestFolder, monitor: Range, limit: float, reason: str) -> AsyncIterator[None]:
    """Hold the lock of a monitor."""
    fd = folder.open_launcher()
    try:
        end = time.monotonic() + limit
        while not take(fd, monitor):
            if time.monotonic() >= end:
                raise GuestBusy(f"{folder.name} was busy for {limit:g} s: {reason}", hint="try again")
            await asyncio.sleep(LOOK_INTERVAL)
        yield
    finally:
        os.close(fd)


@asynccontextmanager
async def _session_at(folder: GuestFolder, name: str, limit: float) -> AsyncIterator[Qmp]:
    end = time.monotonic() + limit
    connection = socket.socket(socket.AF_UNIX)
    connection.setblocking(False)
    try:
        while not _connects(connection, folder, name):
            if time.monotonic() >= end:
                raise GuestTimeout(
                    f"QEMU took no connection within {limit:g} s", hint="it may be stuck: `sevlaunch down --now`"
                )
            await asyncio.sleep(LOOK_INTERVAL)
        async with session(connection, limit=max(0.0, end - time.monotonic())) as qmp:
            yield qmp
    finally:
        connection.close()


def _connects(connection: socket.socket, folder: GuestFolder, name: str) -> bool:
    """Connect to a socket of the guest; False when those who wait for QEMU there are too many.

    :raise QmpError: when nobody listens.
    """
    try:
        folder.connect(connection, name)
    except BlockingIOError:
        return False
    except OSError as error:
        _check_descriptors(error)
        raise QmpError(f"can't talk QMP to QEMU: {error.strerror}") from error
    return True


def _check_descriptors(error: Exception) -> None:
    """What this process can't open is no fault of QEMU's."""
    problem = too_few_descriptors(error)
    if problem:
        raise problem from error


def _short(error: Exception) -> str:
    """One line of an error, which may quote a whole message of the other side."""
    text = " ".join(str(error).split())
    return text if len(text) <= MESSAGE_LENGTH else f"{text[:MESSAGE_LENGTH]}..."
