"""Opening files that somebody else may have named: never waiting, and never reading what has no end."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from sevlaunch.errors import HostError

_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFDIR: "a folder",
}
# How the shell hands over what a command prints, and its standard input: as descriptors of this process.
_DESCRIPTORS = ("/dev/fd/", "/proc/self/fd/")
_STANDARD_INPUT = "/dev/stdin"


def open_regular(path: str | Path, *, but_block_device: bool = False) -> BinaryIO:
    """A regular file (with ``but_block_device``: or such a one), for reading; a link to one is one.

    Opening a FIFO waits for a writer, opening some devices changes them, and reading either may never end.

    :raise OSError: as open(2) does; EINVAL for another kind of file.
    :raise ValueError: for a path that holds NUL.
    """
    _check_kind(Path(path).stat(), but_block_device=but_block_device)
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        # It may be another one by now.
        _check_kind(os.fstat(fd), but_block_device=but_block_device)
        return os.fdopen(fd, "rb")
    except BaseException:
        os.close(fd)
        raise


def open_given(path: str | Path) -> BinaryIO:
    """As :func:`open_regular`, for a path from the command line: that may be a descriptor of ours, as in ``<(...)``."""
    name = os.fspath(path)
    if name == _STANDARD_INPUT or name.startswith(_DESCRIPTORS):
        return Path(path).open("rb")
    return open_regular(path)


def too_few_descriptors(error: BaseException) -> HostError | None:
    """What to tell when this process may open no more files, if that is what is behind ``error``."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in (errno.EMFILE, errno.ENFILE):
            return HostError(f"can't open what is needed: {cause.strerror}", hint="allow more: ulimit -n 1024")
        cause = cause.__cause__ or cause.__context__
    return None


def other_kind(status: os.stat_result, *, but_block_device: bool = False) -> str:
    """What a file is that is no regular one (with ``but_block_device``: nor such a one), in words; '' if it is."""
    kind = stat.S_IFMT(status.st_mode)
    fine = kind == stat.S_IFREG or (but_block_device and kind == stat.S_IFBLK)
    return "" if fine else _KINDS.get(kind, "another kind of file")


def _check_kind(status: os.stat_result, *, but_block_device: bool) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if kind := other_kind(status, but_block_device=but_block_device):
        raise OSError(errno.EINVAL, f"it is {kind}, and no regular file")
