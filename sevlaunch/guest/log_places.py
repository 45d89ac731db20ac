"""Places in a log: its lines, and what came when. Its beginning may be a hole: :mod:`sevlaunch.guest.keeper`."""

from __future__ import annotations

import errno
import os

from sevlaunch.guest.console_log import TIMES
from sevlaunch.guest.keeper import MOMENT
from sevlaunch.guest.safe_files import OpenFolder

_PIECE = 1 << 16


def data_from(fd: int, position: int) -> int | None:
    """Where the next byte of a file is from ``position`` on that stands in no hole; None at the end."""
    try:
        return os.lseek(fd, position, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return None


def beginning(fd: int) -> int:
    """Where the first whole line of a log begins."""
    begin = data_from(fd, 0)
    if not begin:
        return 0
    return begin + os.pread(fd, _PIECE, begin).find(b"\n") + 1


def last_lines(fd: int, count: int) -> int:
    """Where the last ``count`` lines of a log begin; read backwards, a piece at a time."""
    begin, end = beginning(fd), os.fstat(fd).st_size
    if count == 0:
        return end
    position, left = end, count
    while position > begin:
        step = min(_PIECE, position - begin)
        piece = os.pread(fd, step, position - step)
        at = len(piece)
        # The last line may lack its end.
        while (at := piece.rfind(b"\n", 0, at)) >= 0:
            if position - step + at + 1 == end:
                continue
            left -= 1
            if left <= 0:
                return position - step + at + 1
        position -= step
    return begin


def since(folder: OpenFolder, fd: int, moment: float) -> int:
    """Where what came at ``moment``, in seconds since 1970, or later begins in the log ``fd``; to a second."""
    time: int
    position: int
    for time, position in MOMENT.iter_unpack(_whole(folder.read(TIMES))):
        if time >= int(moment):
            return max(position, beginning(fd))
    return os.fstat(fd).st_size


def _whole(content: bytes) -> bytes:
    # The last one may be on its way.
    return content[: len(content) // MOMENT.size * MOMENT.size]
