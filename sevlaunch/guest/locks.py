"""Locks on a guest's files: open file description locks, fcntl(2).

They are inherited with the open file, and end with the last process that has it open.
These files carry them:

``lock``      held whole by QEMU, which inherits it: the guest lives exactly as long as the lock is held.
``launcher``  a byte for each thing that one command does at a time: starting or removing the guest, and talking through
              one of its monitors.
NVRAM         its first byte, which QEMU inherits, too: no two guests write to one store. QEMU's own locks on it are
              bytes from 100 on (block/file-posix.c, RAW_LOCK_PERM_BASE).
``disks.lock`` in the state folder: its first byte, which QEMU inherits, too: one guest writes to the overlays there.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from typing import NamedTuple

# struct flock on x86-64: l_type, l_whence, l_start, l_len, l_pid (zero for open file description locks).
_FLOCK = struct.Struct("hhxxxxqqixxxx")


class Range(NamedTuple):
    """Bytes of a file that are locked together; no length means all that follow."""

    start: int
    length: int


WHOLE = Range(0, 0)
# A removal takes one byte more than a start, so that whoever looks can tell them apart.
STARTING = Range(0, 1)
REMOVING = Range(0, 2)
COMMANDS_MONITOR = Range(2, 1)
PROGRAMS_MONITOR = Range(3, 1)
VARIABLES = Range(0, 1)
DISKS = Range(0, 1)


def take(fd: int, wanted: Range) -> bool:
    """Lock ``wanted`` in the open file ``fd``; whether nobody else has any of it."""
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, *wanted, 0))
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        return False
    return True


def held_by_another(fd: int, wanted: Range) -> Range | None:
    """The lock that keeps others from ``wanted``, or None; looking does not disturb anyone who wants to take it."""
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, *wanted, 0)
    kind, _, start, length, _ = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked))
    return None if kind == fcntl.F_UNLCK else Range(start, length)
