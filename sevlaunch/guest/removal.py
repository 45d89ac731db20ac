"""Removing what outlives a guest: its NVRAM, and all else in its state folder."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from shlex import quote

from sevlaunch.errors import GuestNotFound, HostError, NameTaken
from sevlaunch.guest.folder import GuestFolder
from sevlaunch.guest.life import is_alive
from sevlaunch.guest.locks import VARIABLES, take


def remove_state(name: str, *, root: Path, state: Path) -> list[Path]:
    """Remove what the guests called ``name`` have left, whichever profiles they are of; the files that there were.

    :param root: the folder of all guests that run.
    :param state: the folder of what outlives guests.
    :raise GuestNotFound: when nothing is there.
    :raise NameTaken: when such a guest runs; nothing is removed then.
    :raise HostError: when something can't be removed, or is not this user's.
    """
    folder = state / name
    if not name or "/" in name or name.startswith(".") or not folder.is_dir() or folder.is_symlink():
        raise GuestNotFound(
            f"nothing of a guest {name!r} is kept in {state}", hint="its runtime folder goes with `down`"
        )
    if folder.stat().st_uid != os.geteuid():
        raise HostError(f"{folder} is not this user's", hint="remove it as its owner")
    running = GuestFolder(root, name)
    if running.path.exists() and is_alive(running):
        raise _is_taken(name)
    with ExitStack() as locks:
        files = list(_files(folder))
        for file in files:
            # Guests of other runtime folders have their NVRAM here, too, and keep it locked while they live.
            if not _lock(file, locks):
                raise _is_taken(name)
        # Under this name no start finds half of it.
        going = folder.with_name(f".{name}.removing-{os.getpid()}")
        try:
            folder.rename(going)
            shutil.rmtree(going)
        except OSError as error:
            raise HostError(f"can't remove {error.filename or folder}: {error.strerror}") from error
    return files


def _files(folder: Path) -> Iterator[Path]:
    for path, _, names in os.walk(folder):
        yield from (Path(path) / name for name in sorted(names))


def _lock(file: Path, locks: ExitStack) -> bool:
    """Take the lock that a guest has on its NVRAM; whether it was free. Others' files and links have none."""
    if not stat.S_ISREG(file.lstat().st_mode):
        return True
    try:
        fd = os.open(file, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise HostError(f"can't open {file}: {error.strerror}", hint="remove it as its owner") from error
    locks.callback(os.close, fd)
    return take(fd, VARIABLES)


def _is_taken(name: str) -> NameTaken:
    return NameTaken(f"a guest {name!r} runs, and uses what would be removed", hint=f"sevlaunch down {quote(name)}")
