"""Files that QEMU is handed open, and that go with the last process that has them open."""

from __future__ import annotations

import fcntl
import os
from contextlib import ExitStack
from types import TracebackType
from typing import IO

from sevlaunch.profile.model import Cache


def open_as_cached(file: IO[bytes], cache: Cache) -> None:
    """Have an open file past the host's cache where its disk is: from QEMU 10 on it takes none that is open otherwise.

    :raise OSError: where the file system has no such way.
    """
    # Few disks are handed over, and many guests have none.
    from sevlaunch.plan.disk_image import CACHE

    if CACHE[cache].direct == "on":
        fcntl.fcntl(file, fcntl.F_SETFL, fcntl.fcntl(file, fcntl.F_GETFL) | os.O_DIRECT)


class Opened:
    """Open files without names, by the numbers that a plan has for their descriptors.

    Who starts a guest anew, because it rebooted, keeps them for it in between; leaving the block closes them here.
    """

    def __init__(self) -> None:
        self.numbers: dict[int, int] = {}
        self._files = ExitStack()

    def keep(self, number: int, file: IO[bytes]) -> None:
        """Keep ``file``, which the plan has as ``number``."""
        self.numbers[number] = self._files.enter_context(file).fileno()

    def close(self) -> None:
        """Close them here; QEMU has its own."""
        self.numbers = {}
        self._files.close()

    def __enter__(self) -> Opened:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
