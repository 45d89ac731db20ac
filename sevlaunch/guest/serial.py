"""A guest's serial console for programs: read what it prints, wait for text, send keys."""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from sevlaunch.errors import GuestTimeout, SevlaunchError
from sevlaunch.guest.console import connect
from sevlaunch.guest.console_log import log_end, log_path, opened_log_folder
from sevlaunch.guest.folder import GuestFolder
from sevlaunch.guest.log_places import data_from
from sevlaunch.guest.process import Process
from sevlaunch.guest.safe_files import OpenFolder
from sevlaunch.guest.watch import FolderWatch
from sevlaunch.plan.places import CONSOLE_LOG

EXPECT_LIMIT = 60.0
# A console that floods: text is looked for in what came new, and in this much before it.
WINDOW = 1 << 20
PIECE = 1 << 16
# How much of the console an error shows.
SHOWN = 2000


class Console:
    """The console of one guest.

    Reading goes through the console's log, so nothing is lost that was printed before; what was read or matched is
    not read again.
    """

    def __init__(self, folder: GuestFolder, process: Process) -> None:
        self._folder = folder
        self._process = process
        self._position = 0
        self._connection: socket.socket | None = None

    @property
    def log(self) -> Path:
        """The file with what the guest has printed."""
        return log_path(self._folder)

    async def read(self) -> bytes:
        """What came since the last read or match; empty when nothing did."""
        content = b""
        with suppress(FileNotFoundError), opened_log_folder(self._folder) as opened:
            while piece := self._new(opened, WINDOW):
                content += piece
        return content

    async def expect(self, pattern: str | re.Pattern[bytes], *, limit: float = EXPECT_LIMIT) -> re.Match[bytes]:
        """Wait until the guest prints ``pattern``: text, or a compiled pattern over bytes.

        It is tried on what has come so far: ``is (\\d+)`` finds a first digit, ``is (\\d+)\\s`` the whole number.

        :raise GuestTimeout: when it does not come within ``limit`` seconds; the error shows the end of the output.
        :raise SevlaunchError: when the guest ends before, or has no console.
        """
        wanted = re.compile(re.escape(pattern.encode())) if isinstance(pattern, str) else pattern
        try:
            async with asyncio.timeout(limit):
                return await self._find(wanted)
        except FileNotFoundError as error:
            raise SevlaunchError(
                f"{self._folder.name} has no console", hint="its profile says console: none"
            ) from error
        except TimeoutError as error:
            raise GuestTimeout(
                f"{self._folder.name} did not print {wanted.pattern!r} within {limit:g} s",
                hint=f"its console says last:\n{self.end()}",
            ) from error

    async def send(self, text: str | bytes) -> None:
        """Type ``text``; a line ends with ``\\n``.

        :raise SevlaunchError: when there is no console.
        """
        if self._connection is None:
            self._connection = connect(self._folder)
            self._connection.setblocking(False)
        loop = asyncio.get_running_loop()
        connection = self._connection
        # What the guest prints is read from its log; here it only has to be taken off the line.
        loop.add_reader(connection, _drain(connection, lambda: loop.remove_reader(connection)))
        try:
            await loop.sock_sendall(connection, text.encode() if isinstance(text, str) else text)
        except OSError as error:
            raise SevlaunchError(
                f"the console of {self._folder.name} was closed: {error.strerror}",
                hint="another program took the line, or the guest has ended",
            ) from error

    def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            asyncio.get_running_loop().remove_reader(self._connection)
            self._connection.close()
            self._connection = None

    async def _find(self, wanted: re.Pattern[bytes]) -> re.Match[bytes]:
        window = b""
        with opened_log_folder(self._folder) as opened, FolderWatch(opened) as watch:
            while True:
                ended = self._process.ended
                while piece := self._new(opened, WINDOW):
                    window += piece
                    found = wanted.search(window)
                    if found:
                        self._position -= len(window) - found.end()
                        return found
                    window = window[-WINDOW:]
                    # A guest that floods must not keep others from their turn.
                    await asyncio.sleep(0)
                if ended:
                    raise SevlaunchError(
                        f"{self._folder.name} ended before it printed {wanted.pattern!r}",
                        hint=f"its console says last:\n{self.end()}",
                    )
                await watch.changed(self._process)

    def _new(self, opened: OpenFolder, size: int) -> bytes:
        try:
            fd = opened.open_file(CONSOLE_LOG)
        except FileNotFoundError:
            return b""
        try:
            begin = data_from(fd, self._position)
            content = b"" if begin is None else os.pread(fd, size, begin)
            self._position = self._position if begin is None else begin + len(content)
        finally:
            os.close(fd)
        return content

    def end(self) -> str:
        """The end of what the guest has printed."""
        return log_end(self._folder, SHOWN).decode("utf-8", "replace") or "(nothing)"


def _drain(connection: socket.socket, at_end: Callable[[], object]) -> Callable[[], None]:
    def take() -> None:
        try:
            if not connection.recv(PIECE):
                at_end()
        except BlockingIOError:
            return
        except OSError:
            at_end()

    return take
