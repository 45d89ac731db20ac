"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from sevlaunch.errors import HostError


def write_whole(file: Path, content: bytes, *, replace: bool = True) -> None:
    """Write ``content`` with mode 0600 so that the file is there whole or not at all.

    :param replace: if not, a file that is there already stays as it is.
    :raise HostError: when it can't be written.
    """
    # Most commands write nothing.
    import tempfile

    temporary = ""
    try:
        fd, temporary = tempfile.mkstemp(dir=file.parent, prefix=".new-")
        with os.fdopen(fd, "wb") as stream:
            stream.write(content)
        if replace:
            Path(temporary).replace(file)
        else:
            with contextlib.suppress(FileExistsError):
                file.hardlink_to(temporary)
            Path(temporary).unlink()
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise HostError(f"can't write {file}: {error.strerror}", hint=space_hint(error)) from error


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
