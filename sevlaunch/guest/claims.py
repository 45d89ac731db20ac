"""Taking a guest's name: for a start, for its removal, and for the life of its QEMU."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from shlex import quote

from sevlaunch.atomic import space_hint
from sevlaunch.errors import HostError, NameTaken
from sevlaunch.guest.folder import LAUNCHER, LOCK, GuestFolder
from sevlaunch.guest.life import qemu_pid
from sevlaunch.guest.locks import STARTING, WHOLE, Range, take
from sevlaunch.guest.runtime import open_root, prepare_root
from sevlaunch.guest.safe_files import OpenFolder


@contextlib.contextmanager
def hold_launcher(folder: GuestFolder, purpose: Range = STARTING) -> Iterator[None]:
    """Be the one command that starts the guest or, with :data:`~sevlaunch.guest.locks.REMOVING`, removes it.

    :raise NameTaken: when another one is.
    """
    prepare_root(folder.root)
    fd = _claim(folder, LAUNCHER, purpose)
    try:
        yield
    finally:
        os.close(fd)


def claim_lock(folder: GuestFolder) -> int:
    """Take the guest's lock; the file descriptor is for QEMU to inherit. Call it under :func:`hold_launcher`.

    :raise NameTaken: when the guest lives.
    """
    return _claim(folder, LOCK, WHOLE)


def taken(folder: GuestFolder) -> NameTaken:
    """The error for a name whose guest runs."""
    pid = qemu_pid(folder)
    return NameTaken(
        f"a guest {folder.name!r} runs already" + (f" (pid {pid})" if pid else ""),
        hint=f"take it down with `sevlaunch down {quote(folder.name)}`, or give this one another name with --name",
    )


def _claim(folder: GuestFolder, name: str, wanted: Range) -> int:
    while True:
        try:
            fd = _open(folder, name)
        except FileNotFoundError:
            # Somebody removed the folder in this moment, or the one of all guests.
            prepare_root(folder.root)
            continue
        except OSError as error:
            _withdraw(folder, name)
            raise HostError(f"can't create {folder.file(name)}: {error.strerror}", hint=space_hint(error)) from error
        try:
            if not take(fd, wanted):
                raise _busy(folder) if name == LAUNCHER else taken(folder)
            if _is(folder, name, fd):
                return fd
        except BaseException:
            os.close(fd)
            raise
        # The folder was removed between opening and locking: that file is no one's any more.
        os.close(fd)


def _open(folder: GuestFolder, name: str) -> int:
    with open_root(folder.root) as root:
        # Not exist_ok: it looks again, and fails when the folder has gone by then.
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder.name, 0o700, dir_fd=root.fd)
        with _own(root, folder.name) as opened:
            return opened.open_file(name, os.O_RDWR | os.O_CREAT)


def _own(root: OpenFolder, name: str) -> OpenFolder:
    return root.folder(name, owner=os.geteuid())


def _is(folder: GuestFolder, name: str, fd: int) -> bool:
    try:
        with open_root(folder.root) as root, _own(root, folder.name) as opened:
            return os.path.samestat(os.fstat(fd), opened.status(name))
    except FileNotFoundError:
        return False


def _withdraw(folder: GuestFolder, name: str) -> None:
    """Take away what a claim has made by then, if nothing else is in the folder."""
    with contextlib.suppress(OSError), open_root(folder.root) as root:
        if name == LOCK:
            with _own(root, folder.name) as opened:
                os.unlink(LAUNCHER, dir_fd=opened.fd)
        os.rmdir(folder.name, dir_fd=root.fd)


def _busy(folder: GuestFolder) -> NameTaken:
    return NameTaken(
        f"the guest {folder.name!r} is being started or taken down by another command",
        hint="wait for it, or give this one another name with --name",
    )
