"""Which process has a guest's lock file open: what the kernel says, whatever stands in a file."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from sevlaunch.guest.record import FileIdentity

_PROC = Path("/proc")
# What the files of a process say that has ended meanwhile.
_GONE = (FileNotFoundError, ProcessLookupError)


def holds(pid: int, locks: Collection[FileIdentity], *, user: int, argument: bytes) -> bool:
    """Whether a process has one of ``locks`` open.

    Where the kernel does not tell (root without CAP_SYS_PTRACE may not look at another user's process), whether it runs
    as ``user`` and has ``argument`` in its command line.
    """
    try:
        return any(identity in locks for identity in _open_files(pid))
    except PermissionError:
        return is_run(pid, user=user, argument=argument)
    except _GONE:
        return False


def find_holder(lock: FileIdentity) -> int | None:
    """The QEMU that has the file ``lock`` open, of all processes that may be looked at."""
    return _find_qemu(lambda pid: lock in _open_files(pid))


def find_holder_of_deleted(lock: Path) -> int | None:
    """The QEMU that has open what once was the file ``lock``."""
    deleted = f"{lock} (deleted)"
    return _find_qemu(lambda pid: any(str(link.readlink()) == deleted for link in _links(pid)))


def _find_qemu(has_lock: Callable[[int], bool]) -> int | None:
    for process in _PROC.iterdir():
        # It may be another user's.
        with contextlib.suppress(*_GONE, PermissionError):
            if process.name.isdigit() and _is_qemu(int(process.name)) and has_lock(int(process.name)):
                return int(process.name)
    return None


def _links(pid: int) -> Iterator[Path]:
    yield from (_PROC / str(pid) / "fd").iterdir()


def _open_files(pid: int) -> Iterator[FileIdentity]:
    for link in _links(pid):
        # Closed since the folder was listed, perhaps.
        with contextlib.suppress(FileNotFoundError):
            found = link.stat()
            yield FileIdentity(found.st_dev, found.st_ino)


def is_run(pid: int, *, user: int, argument: bytes) -> bool:
    """Whether a process runs as ``user`` and has ``argument`` in its command line."""
    try:
        status = (_PROC / str(pid) / "status").read_text()
        uids = next(line.split()[1:] for line in status.splitlines() if line.startswith("Uid:"))
        return uids[0] == str(user) and argument in _command_line(pid)
    except (*_GONE, PermissionError):
        return False


def _command_line(pid: int) -> bytes:
    return (_PROC / str(pid) / "cmdline").read_bytes()


def _is_qemu(pid: int) -> bool:
    arguments = _command_line(pid).split(b"\0")
    return b"-machine" in arguments and b"-chardev" in arguments
