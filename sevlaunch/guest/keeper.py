"""The process that keeps a guest's logs within their bounds, for as long as QEMU lives.

QEMU writes the console's log itself, and neither turns it over nor cuts it off, in all versions from 7.2 to 11.1
(chardev/char.c, qemu_chr_write_log()); what QEMU and the helper programs say on stderr, which a guest may cause, goes
into files, too. Nobody stands between: a guest never waits for its log. What is too old is taken out of the
file's beginning instead, as a hole (fallocate(2), FALLOC_FL_PUNCH_HOLE): places in the file stay what they are, for
QEMU and for whoever reads, and nothing is copied, or lost in between.

Run as a program of its own, with Python's standard library alone, so that it takes little memory::

    python -IS keeper.py FOLDER QEMU JOURNAL LOG,TIMES,BOUND...

FOLDER is the guest's, by which the process is known; QEMU, LOG and TIMES are file descriptors: QEMU's pidfd, a log, and
a file that gets when what came, or -1 for a log whose writers append to it; BOUND is in bytes. Where JOURNAL is not
empty, the lines of the first log go into systemd's journal, too, as those of the guest of this name.
"""

import ctypes
import os
import select
import struct
import sys
import time

# As typing's, which takes a while to import.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from sevlaunch.guest.journal import Journal

# include/uapi/linux/inotify.h, include/uapi/linux/falloc.h
_IN_MODIFY = 0x00000002
_KEEP_SIZE, _PUNCH_HOLE = 0x01, 0x02
# Holes begin and end with blocks of the file system: what is kept of one would read as zeros.
_BLOCK = 4096
# Milliseconds: between two looks at a log that grows; between two where the kernel tells of no change.
_INTERVAL, _WITHOUT_WATCH = 50, 1000
# Of the bound, what stays when the log has reached it.
_KEPT = 0.75
# Where it has to be copied, in bytes: it is in memory for a moment.
_MOST_COPIED = 1 << 20
# When, in seconds since 1970; where in the log what came then begins.
MOMENT = struct.Struct("<QQ")
_MOST_MOMENTS = 4096

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


class Keeper:
    """Keeps one log.

    :param times: -1 where its writers append to it: all others go on at their place when it is cut off.
    """

    def __init__(self, log: int, times: int, bound: int) -> None:
        self._log = log
        self._times = times
        self._bound = bound
        # What is before it has been taken out.
        self.begin = 0
        self._seen = 0
        self._moments: list[tuple[int, int]] = []

    def look(self) -> None:
        """Note what came since the last look, and take out what is too old."""
        size = os.fstat(self._log).st_size
        if size > self._seen:
            if self._times >= 0:
                self._note(int(time.time()))
            self._seen = size
        if size - self.begin > self._bound:
            self._cut(size)

    def _cut(self, size: int) -> None:
        begin = (size - int(self._bound * _KEPT)) // _BLOCK * _BLOCK
        if _libc.fallocate(self._log, _KEEP_SIZE | _PUNCH_HOLE, self.begin, begin - self.begin):
            # This file system has no holes to punch.
            begin = self._copy(size)
        self.begin = begin

    def _copy(self, size: int) -> int:
        """Cut the log off, and put its end back; where that begins.

        QEMU goes on at its place in the console's log: what is before the end becomes zeros, which not every such file
        system can tell from what was written. The first moment tells it.
        """
        begin = size - min(int(self._bound * _KEPT), _MOST_COPIED)
        end = os.pread(self._log, size - begin, begin)
        whole = end.find(b"\n") + 1
        os.ftruncate(self._log, 0)
        if self._times < 0:
            self._seen = os.pwrite(self._log, end[whole:], 0)
            return 0
        os.pwrite(self._log, end[whole:], begin + whole)
        self._write_moments([(int(time.time()), begin + whole)])
        return begin + whole

    def _note(self, now: int) -> None:
        if self._moments and self._moments[-1][0] == now:
            return
        self._moments.append((now, self._seen))
        os.pwrite(self._times, MOMENT.pack(*self._moments[-1]), (len(self._moments) - 1) * MOMENT.size)
        if len(self._moments) > _MOST_MOMENTS:
            # What the log begins with came at the last moment before.
            old = sum(position <= self.begin for _, position in self._moments)
            kept = self._moments[max(0, old - 1) :]
            # Where all are of use, older ones become sparse.
            half = len(kept) // 2
            self._write_moments(kept if len(kept) < _MOST_MOMENTS // 2 else kept[:half:2] + kept[half:])

    def _write_moments(self, moments: list[tuple[int, int]]) -> None:
        self._moments = moments
        os.ftruncate(self._times, 0)
        os.pwrite(self._times, b"".join(MOMENT.pack(*moment) for moment in moments), 0)


def _watch(files: list[int]) -> int | None:
    """A descriptor that is readable when one of the files grows; None where this user has too many already."""
    watch = _libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
    if watch < 0:
        return None
    if any(_libc.inotify_add_watch(watch, b"/proc/self/fd/%d" % file, _IN_MODIFY) < 0 for file in files):
        return None
    return int(watch)


def main(qemu: int, journal: str, logs: list[tuple[int, int, int]]) -> None:
    """Keep the logs until QEMU has ended.

    :param journal: as whose lines those of the first log go into the journal, or nothing.
    :param logs: of each, the descriptors of the log and its times, and its bound.
    """
    watch = _watch([log for log, _, _ in logs])
    keepers = [Keeper(*log) for log in logs]
    passing = _journal(journal, logs[0][0]) if journal else None
    end, change = select.poll(), select.poll()
    end.register(qemu, select.POLLIN)
    change.register(qemu, select.POLLIN)
    if watch is not None:
        change.register(watch, select.POLLIN)
    while True:
        for keeper in keepers:
            keeper.look()
        passed = passing is None or passing.pass_on(keepers[0].begin)
        if end.poll(_INTERVAL):
            break
        if watch is not None:
            try:
                os.read(watch, 1 << 16)
            except BlockingIOError:
                change.poll(None if passed else 0)
        else:
            change.poll(_WITHOUT_WATCH if passed else 0)
    for keeper in keepers:
        keeper.look()
    if passing:
        passing.finish(keepers[0].begin)
        passing.close()


def _journal(name: str, log: int) -> "Journal":
    # Few guests have it. The package is in no place that an isolated Python looks at.
    from pathlib import Path

    sys.path.append(str(Path(__file__).resolve().parents[2]))
    from sevlaunch.guest.journal import Journal

    return Journal(name, log)


def _three(word: str) -> tuple[int, int, int]:
    log, times, bound = map(int, word.split(","))
    return log, times, bound


if __name__ == "__main__":
    main(int(sys.argv[2]), sys.argv[3], [_three(word) for word in sys.argv[4:]])
