"""The cache of fetched images: a folder for each, with the image, what vouches for it, and a lock.

A folder has an image once ``image`` and ``image.json`` are there and fit each other: the record is written first, the
image gets its name last. Whatever ends a download in between, there is no image, and the next one goes on from there.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from sevlaunch.atomic import make_private_folder, write_whole
from sevlaunch.documents import decode
from sevlaunch.errors import HostError, ImageError, UnsafeFile
from sevlaunch.host.folders import image_file, images_folder
from sevlaunch.image.web import Line
from sevlaunch.opening import other_kind

RECORD, LOCK = "image.json", "lock"
# What has come of an image, and what is known of it.
PARTIAL, PARTIAL_NOTES = "partial", "partial.json"
# Of a file that was being written whole when its writer died.
_UNFINISHED = ".new-*"
_MAX_RECORD = 64 << 10
_ENTRY = re.compile(r"[a-z0-9][a-z0-9.+_-]{0,70}")


class Record(Struct, frozen=True):
    """What is known of a fetched image.

    ``name``: the catalogue's, or the URL that was asked for; ``source``: where it came from. ``checksum``: what it had
    to be, as ALGORITHM:HEX. ``verified``: by the publisher's signature, or by a checksum alone; ``by``: the key's
    fingerprint, or whose checksum it was. ``size`` and ``modified`` (nanoseconds) are those of the file; ``fetched``:
    when, in UTC. ``user``: who logs in there; ``boot``: what is to be known of its boot.
    """

    name: str
    source: str
    sha256: str
    checksum: str
    size: int
    modified: int
    format: str
    virtual_size: int
    verified: Literal["checksum", "signature"]
    by: str
    fetched: str
    user: str = ""
    boot: str = ""


class Kept(Struct, frozen=True):
    """What a folder of the cache holds.

    ``entry``: its name. ``state``: ``whole``, ``partial`` (a download that was cut), or ``changed``: the file is not
    what was fetched any more. ``size``: bytes on disk; ``record``: of a whole one.
    """

    entry: str
    path: Path
    state: Literal["whole", "partial", "changed"]
    size: int
    record: Record | None = None


def find_image(entry: str, folder: Path | None = None) -> Kept | None:
    """What there is of an entry, None where there is nothing.

    :raise UnsafeFile: when the cache is not this user's alone.
    """
    cache = folder or images_folder()
    if not _checked(cache) or not _checked(cache / entry):
        return None
    path = image_file(entry, cache)
    image, partial = _status(path), _status(cache / entry / PARTIAL)
    if image is None:
        return Kept(entry, path, "partial", partial.st_size) if partial else None
    record = _read_record(cache / entry)
    fits = record is not None and (record.size, record.modified) == (image.st_size, image.st_mtime_ns)
    return Kept(entry, path, "whole" if fits else "changed", image.st_size, record if fits else None)


def list_images(folder: Path | None = None) -> list[Kept]:
    """What the cache holds, by name.

    :raise UnsafeFile: when it is not this user's alone.
    """
    cache = folder or images_folder()
    if not _checked(cache):
        return []
    entries = sorted(path.name for path in cache.iterdir() if _ENTRY.fullmatch(path.name))
    return [kept for entry in entries if (kept := find_image(entry, cache))]


def remove_image(entry: str, folder: Path | None = None) -> Kept:
    """Remove an entry, also what has come of a download that was cut.

    :return: what it held.
    :raise ImageError: when there is none, or it is being fetched.
    :raise UnsafeFile: when the cache is not this user's alone.
    """
    cache = folder or images_folder()
    kept = find_image(entry, cache) if _ENTRY.fullmatch(entry) else None
    if kept is None:
        raise ImageError(f"no image {entry!r} was fetched", hint="see: sevlaunch image ls")

    def busy() -> None:
        raise ImageError(f"{entry} is being fetched by another process", hint="wait for it, or end it")

    with locked(cache / entry, Line(), busy):
        # Without a record nothing of it counts as an image, whatever is left when this is cut short.
        for name in (RECORD, image_file(entry).name, PARTIAL_NOTES, PARTIAL, LOCK):
            (cache / entry / name).unlink(missing_ok=True)
        # Somebody may fetch it anew already.
        with suppress(OSError):
            (cache / entry).rmdir()
    return kept


@contextmanager
def locked(entry: Path, line: Line, busy: Callable[[], None]) -> Iterator[None]:
    """A block in which no other process fetches or removes the image of this folder, which is made.

    :param busy: called once before waiting for another one.
    :raise HostError: when the folder can't be made.
    :raise UnsafeFile: when it, or the cache, is not this user's alone.
    """
    told = False
    while True:
        fd = _open_lock(entry)
        try:
            while not _take(fd):
                if not told:
                    busy()
                told = True
                line.pause(0.1)
            # Who removed the folder meanwhile took this lock along.
            if _same(fd, entry / LOCK):
                for unfinished in entry.glob(_UNFINISHED):
                    unfinished.unlink(missing_ok=True)
                yield
                return
        finally:
            os.close(fd)


def put(entry: Path, record: Record) -> None:
    """Make what has come the image of the folder, with its record.

    The caller has the lock, and has seen that it is whole. Afterwards both are on the disk.
    """
    partial = entry / PARTIAL
    partial.chmod(0o444)
    _sync(partial)
    write_whole(entry / RECORD, msgspec.json.encode(record))
    _sync(entry / RECORD)
    _sync(entry)
    partial.replace(image_file(entry.name, entry.parent))
    (entry / PARTIAL_NOTES).unlink(missing_ok=True)
    _sync(entry)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _open_lock(entry: Path) -> int:
    while True:
        try:
            make_private_folder(entry)
            _checked(entry.parent)
            _checked(entry)
            if os.geteuid() == 0:
                _let_pass(entry)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            return os.open(entry / LOCK, flags, 0o600)
        except FileNotFoundError:
            # Removed meanwhile.
            continue
        except OSError as error:
            hint = "set XDG_CACHE_HOME to a folder that this user may write to"
            raise HostError(f"can't keep images in {entry}: {error.strerror}", hint=hint) from error


def _let_pass(entry: Path) -> None:
    """QEMU may run as another user, who has to get at the image by its name."""
    above = (entry.parent.parent,) if entry.parent == images_folder() else ()
    for folder in (*above, entry.parent, entry):
        folder.chmod(0o711)


def _take(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _same(fd: int, path: Path) -> bool:
    found = _status(path)
    ours = os.fstat(fd)
    return found is not None and (found.st_dev, found.st_ino) == (ours.st_dev, ours.st_ino)


def _checked(folder: Path) -> bool:
    """Whether the folder is there.

    :raise UnsafeFile: when it is none, or others may write to it: its images are then not what was fetched.
    """
    try:
        found = folder.lstat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise HostError(f"can't look at {folder}: {error.strerror}") from error
    problem = ""
    if not stat.S_ISDIR(found.st_mode):
        problem = "is no folder"
    elif found.st_uid != os.geteuid():
        problem = f"belongs to another user (uid {found.st_uid})"
    elif found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        problem = "can be written by others"
    if problem:
        raise UnsafeFile(f"{folder} {problem}: it is not used", hint="find out who put it there, then remove it")
    return True


def _status(path: Path) -> os.stat_result | None:
    """Of a regular file of this user's; None for anything else."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found if not other_kind(found) and found.st_uid == os.geteuid() else None


def _read_record(entry: Path) -> Record | None:
    """The record, None where there is none that can be read: there is then no image, either."""
    with suppress(OSError, ValueError):
        fd = os.open(entry / RECORD, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as stream:
            return decode(stream.read(_MAX_RECORD), Record)
    return None
