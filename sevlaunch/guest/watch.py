"""Waiting for files to appear and to grow, without polling: inotify(7) through ctypes."""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any

from sevlaunch.errors import HostError
from sevlaunch.guest.log_places import data_from
from sevlaunch.guest.process import Process
from sevlaunch.guest.safe_files import OpenFolder

# include/uapi/linux/inotify.h
_IN_MODIFY = 0x00000002
_IN_CREATE = 0x00000100
_IN_MOVED_TO = 0x00000080
_IN_DELETE_SELF = 0x00000400
_PIECE = 1 << 16


class FolderWatch:
    """Tells when something in a folder changes."""

    def __init__(self, folder: OpenFolder) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            # EMFILE says either: inotify(7).
            raise _no_watch(folder, "allow more files: ulimit -n 1024; or raise fs.inotify.max_user_instances")
        mask = _IN_MODIFY | _IN_CREATE | _IN_MOVED_TO | _IN_DELETE_SELF
        if libc.inotify_add_watch(self._fd, b"/proc/self/fd/%d" % folder.fd, mask) < 0:
            error = _no_watch(folder, "raise fs.inotify.max_user_watches")
            os.close(self._fd)
            raise error

    def __enter__(self) -> FolderWatch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)

    async def changed(self, process: Process | None = None) -> None:
        """Wait for the next change, or until ``process`` ends."""
        loop = asyncio.get_running_loop()
        change = asyncio.Event()
        loop.add_reader(self._fd, change.set)
        waiters: list[asyncio.Task[Any]] = [asyncio.create_task(change.wait())]
        if process:
            waiters.append(asyncio.create_task(process.wait()))
        try:
            await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
        finally:
            loop.remove_reader(self._fd)
            for waiter in waiters:
                waiter.cancel()
            await asyncio.gather(*waiters, return_exceptions=True)
        try:
            os.read(self._fd, 65536)
        except BlockingIOError:
            return


def _no_watch(folder: OpenFolder, hint: str) -> HostError:
    return HostError(f"can't watch {folder.path}: {os.strerror(ctypes.get_errno())}", hint=hint)


async def follow(
    folder: OpenFolder, name: str, process: Process | None, begin: int = 0, end: int = sys.maxsize
) -> AsyncIterator[bytes]:
    """What is in a file of ``folder`` from ``begin`` on, then what is added to it, until ``process`` ends.

    Holes, which were something once, are passed over.

    :param end: what is behind it in the file is left out: one that grows as fast as it is read has no end of its own.
    """
    fd = folder.open_file(name)
    try:
        with FolderWatch(folder) as watch:
            while True:
                ended = process is None or process.ended
                while (found := data_from(fd, begin)) is not None and found < end:
                    piece = os.pread(fd, min(_PIECE, end - found), found)
                    begin = found + len(piece)
                    # What became a hole in this moment may have been read as zeros.
                    left = data_from(fd, found)
                    if left is not None and left < begin:
                        yield piece[left - found :]
                if ended:
                    return
                await watch.changed(process)
    finally:
        os.close(fd)
