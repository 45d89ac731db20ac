"""Removing what outlives a guest: its NVRAM, its overlays, and all else in its state folder."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from shlex import quote

from sevlaunch.errors import GuestNotFound, HostError, NameTaken
from sevlaunch.guest.folder import GuestFolder
from sevlaunch.guest.life import is_alive
from sevlaunch.guest.locks import VARIABLES, take

# In the name of a folder that is being removed, before a PID.
_REMOVING = ".removing-"


def remove_state(name: str, *, root: Path, state: Path) -> list[Path]:
    """Remove what the guests called ``name`` have left, whichever profiles they are of; the files that there were.

    :param root: the folder of all guests that run.
    :param state: the folder of what outlives guests.
    :raise GuestNotFound: when nothing is there.
    :raise NameTaken: when such a guest runs; nothing is removed then.
    :raise HostError: when something can't be removed, or is not this user's.
    """
    folder = state / name
    fine = bool(name) and "/" not in name and not name.startswith(".")
    there = fine and folder.is_dir() and not folder.is_symlink()
    if not there and not (fine and list(_interrupted(folder))):
        raise GuestNotFound(
            f"nothing of a guest {name!r} is kept in {state}", hint="its runtime folder goes with `down`"
        )
    running = GuestFolder(root, name)
    if running.path.exists() and is_alive(running):
        raise _is_taken(name)
    return remove_folder(folder, name)


def remove_folder(folder: Path, name: str) -> list[Path]:
    """Remove a folder with what outlives the guest ``name``, if it is there; the files that there were.

    :raise NameTaken: when a guest that runs has one of them locked; nothing is removed then.
    :raise HostError: when something can't be removed, or is not this user's.
    """
    removed = [file for left in _interrupted(folder) for file in _remove_tree(left)]
    if not folder.exists():
        return removed
    if folder.stat().st_uid != os.geteuid():
        raise HostError(f"{folder} is not this user's", hint="remove it as its owner")
    with ExitStack() as locks:
        for file in list(_files(folder)):
            # Guests of other runtime folders have NVRAM and disks here, too, and keep them locked while they live.
            if not _lock(file, locks):
                raise _is_taken(name)
        # Under this name no start finds half of it.
        going = folder.with_name(f".{folder.name}{_REMOVING}{os.getpid()}")
        try:
            folder.rename(going)
        except OSError as error:
            raise HostError(f"can't remove {error.filename or folder}: {error.strerror}") from error
        gone = _remove_tree(going)
    return [*removed, *(folder / file.relative_to(going) for file in gone)]


def _interrupted(folder: Path) -> Iterator[Path]:
    """What removals of ``folder`` have left that somebody killed."""
    beginning = f".{folder.name}{_REMOVING}"
    for path in folder.parent.iterdir() if folder.parent.is_dir() else ():
        if path.name.startswith(beginning) and path.lstat().st_uid == os.geteuid():
            yield path


def _remove_tree(folder: Path) -> list[Path]:
    """Remove a folder; the files in it. Another removal may do the same at the same time."""
    files = list(_files(folder))
    try:
        while folder.exists():
            with suppress(FileNotFoundError):
                shutil.rmtree(folder)
    except OSError as error:
        raise HostError(f"can't remove {error.filename or folder}: {error.strerror}") from error
    return files


def _files(folder: Path) -> Iterator[Path]:
    for path, _, names in os.walk(folder):
        yield from (Path(path) / name for name in sorted(names))


def _lock(file: Path, locks: ExitStack) -> bool:
    """Take the lock that a guest has on its NVRAM, or on its disks; whether it was free. Links have none."""
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
