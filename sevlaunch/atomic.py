"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from sevlaunch.errors import HostError

# What open(2) says of O_TMPFILE where the file system, or an old kernel, does not have it.
_NO_UNNAMED_FILES = (errno.EOPNOTSUPP, errno.EISDIR)


def write_whole(file: Path, content: bytes, *, replace: bool = True) -> None:
    """Write ``content`` with mode 0600 so that the file is there whole or not at all.

    :param replace: if not, a file that is there already stays as it is.
    :raise HostError: when it can't be written.
    """
    try:
        if replace:
            with _named(file) as (temporary, stream):
                stream.write(content)
                stream.flush()
                temporary.replace(file)
        else:
            with appearing(file) as stream:
                stream.write(content)
    except OSError as error:
        raise HostError(f"can't write {file}: {error.strerror}", hint=space_hint(error)) from error


@contextmanager
def appearing(file: Path) -> Iterator[BinaryIO]:
    """A new file, mode 0600, for writing: there as ``file`` once that has ended well; one that is there already stays.

    Until then it has no name, where the file system can do that: a process that is killed leaves nothing of it.

    :raise OSError: when it can't be written.
    """
    folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fd = os.open(".", os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=folder)
        except OSError as error:
            if error.errno not in _NO_UNNAMED_FILES:
                raise
            with _named(file) as (temporary, stream):
                yield stream
                stream.flush()
                with suppress(FileExistsError):
                    file.hardlink_to(temporary)
            return
        with os.fdopen(fd, "wb") as stream:
            yield stream
            stream.flush()
            with suppress(FileExistsError):
                # A folder's descriptor makes it linkat(2), which follows the link of /proc to what has no name.
                os.link(f"/proc/self/fd/{fd}", file.name, dst_dir_fd=folder, follow_symlinks=True)
    finally:
        os.close(folder)


@contextmanager
def _named(file: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A file beside ``file``, which is gone again at the end unless it has got another name."""
    # Most commands write nothing.
    import tempfile

    fd, name = tempfile.mkstemp(dir=file.parent, prefix=".new-")
    temporary = Path(name)
    try:
        with os.fdopen(fd, "wb") as stream:
            yield temporary, stream
    finally:
        temporary.unlink(missing_ok=True)


def make_private_folder(folder: Path) -> None:
    """Make a folder for this user alone, with what is missing on the way to it, whatever the umask.

    :raise OSError: when it can't be made.
    """
    # Not parents=True: that gives those on the way other rights.
    for place in reversed(folder.parents):
        if not place.exists():
            place.mkdir(mode=0o700, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)


def space_hint(error: OSError) -> str:
    """What to do when there is no space, or empty."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "free some space there, or set XDG_RUNTIME_DIR to a folder with more of it"
    return ""
