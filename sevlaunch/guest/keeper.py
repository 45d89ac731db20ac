"""The process that keeps the log of a guest's console within its bound, for as long as QEMU lives.

QEMU writes the log itself, and neither turns it over nor cuts it off, in all versions from 7.2 to 11.1 (chardev/char.c,
qemu_chr_write_log()). Nobody stands between: a guest never waits for its log. What is too old is taken out of the
file's beginning instead, as a hole (fallocate(2), FALLOC_FL_PUNCH_HOLE): places in the file stay what they are, for
QEMU and for whoever reads, and nothing is copied, or lost in between.

Run as a program of its own, with Python's standard library alone, so that it takes little memory::

    python -IS keeper.py FOLDER QEMU LOG TIMES BOUND

FOLDER is the guest's, by which the process is known; QEMU, LOG and TIMES are file descriptors: QEMU's pidfd, the log,
and a file that gets when what came; BOUND is in bytes.
"""

import ctypes
import os
import select
import struct
import sys
import time

# include/uapi/linux/inotify.h, include/uapi/linux/falloc.h
_IN_MODIFY = 0x00000002
_KEEP_SIZE, _PUNCH_HOLE = 0x01, 0x02
# Holes begin and end with blocks of the file system: what is kept of one would read as zeros.
_BLOCK = 4096
# Milliseconds: between two looks at a log that grows; between two where the kernel tells of no change.
_INTERVAL, _WITHOUT_WATCH = 50, 1000
# Of the bound, what stays when the log has reached it.
_KEPT = 0.75
# When, in seconds since 1970; where in the log what came then begins.
MOMENT = struct.Struct("<QQ")
_MOST_MOMENTS = 4096

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


class Keeper:
    """Keeps one log."""

    def __init__(self, log: int, times: int, bound: int) -> None:
        self._log = log
        self._times = times
        self._bound = bound
        self._begin = 0
        self._seen = 0
        self._moments: list[tuple[int, int]] = []

    def look(self) -> None:
        """Note what came since the last look, and take out what is too old."""
        size = os.fstat(self._log).st_size
        if size > self._seen:
            self._note(int(time.time()))
            self._seen = size
        if size - self._begin > self._bound:
            self._cut(size)

    def _cut(self, size: int) -> None:
        begin = (size - int(self._bound * _KEPT)) // _BLOCK * _BLOCK
        if _libc.fallocate(self._log, _KEEP_SIZE | _PUNCH_HOLE, self._begin, begin - self._begin):
            # This file system has no holes to punch. QEMU goes on at its place: what is before it becomes one.
            os.ftruncate(self._log, 0)
            begin = size
        self._begin = begin

    def _note(self, now: int) -> None:
        if self._moments and self._moments[-1][0] == now:
            return
        self._moments.append((now, self._seen))
        os.pwrite(self._times, MOMENT.pack(*self._moments[-1]), (len(self._moments) - 1) * MOMENT.size)
        if len(self._moments) > _MOST_MOMENTS:
            kept = [moment for moment in self._moments if moment[1] >= self._begin]
            # Where all are of use, older ones become sparse.
            half = len(kept) // 2
            self._moments = kept if len(kept) < _MOST_MOMENTS // 2 else kept[:half:2] + kept[half:]
            os.ftruncate(self._times, 0)
            os.pwrite(self._times, b"".join(MOMENT.pack(*moment) for moment in self._moments), 0)


def _watch(file: int) -> int | None:
    """A descriptor that is readable when the file grows; None where this user has too many already."""
    watch = _libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
    if watch < 0 or _libc.inotify_add_watch(watch, b"/proc/self/fd/%d" % file, _IN_MODIFY) < 0:
        return None
    return int(watch)


def main(qemu: int, log: int, times: int, bound: int) -> None:
    """Keep the log until QEMU has ended."""
    watch = _watch(log)
    keeper = Keeper(log, times, bound)
    end, change = select.poll(), select.poll()
    end.register(qemu, select.POLLIN)
    change.register(qemu, select.POLLIN)
    if watch is not None:
        change.register(watch, select.POLLIN)
    while True:
        keeper.look()
        if end.poll(_INTERVAL):
            break
        if watch is not None:
            try:
                os.read(watch, 1 << 16)
            except BlockingIOError:
                change.poll()
        else:
            change.poll(_WITHOUT_WATCH)
    keeper.look()


if __name__ == "__main__":
    main(*map(int, sys.argv[2:]))
