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


def beginning(fd: int, first: int = 0) -> int:
    """Where the first whole line of a log begins.

    :param first: what is before it is none of the log's: :func:`first_place`.
    """
    begin = data_from(fd, first)
    if begin is None:
        return first
    if not begin:
        return 0
    return begin + os.pread(fd, _PIECE, begin).find(b"\n") + 1


def last_lines(fd: int, count: int, end: int, first: int = 0) -> int:
    """Where the last ``count`` lines of a log begin that ends at ``end``; read backwards, a piece at a time.

    :param first: as for :func:`beginning`.
    """
    begin = beginning(fd, first)
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
    moments = _moments(folder)
    first = moments[0][1] if moments else 0
    for time, position in moments:
        if time >= int(moment):
            return max(position, beginning(fd, first))
    return os.fstat(fd).st_size


def first_place(folder: OpenFolder) -> int:
    """Where the log of a console may begin. Before it there may be zeros, where a file system has no holes."""
    try:
        moments = _moments(folder)
    except FileNotFoundError:
        return 0
    return moments[0][1] if moments else 0


def _moments(folder: OpenFolder) -> list[tuple[int, int]]:
    content = folder.read(TIMES)
    # The last one may be on its way.
    return list(MOMENT.iter_unpack(content[: len(content) // MOMENT.size * MOMENT.size]))
