"""A CD-ROM image of a folder: all that is in it, and nothing that is not. The same content gives the same bytes."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from io import RawIOBase
from mmap import mmap
from pathlib import Path
from typing import IO, BinaryIO, cast

from msgspec import Struct

from sevlaunch.errors import HostError, Problem
from sevlaunch.image.iso9660 import fix_dates
from sevlaunch.opening import other_kind
from sevlaunch.units import format_size, mebibytes

# A disk of a folder is written anew at each start.
MOST_BYTES = 8 << 30
MOST_FILES = 20_000
# Of what is refused, this many are named.
_MOST_NAMED = 20
# Rock Ridge 1.12, 4.1.4: names may be longer, and no system reads those.
_MOST_NAME_BYTES = 255
_FOLDER_MODE, _FILE_MODE = 0o040555, 0o100444
_BY_HAND = "make a disk of it yourself: mke2fs -d FOLDER IMAGE SIZE"
# Bytes that are copied at once.
_BLOCK = 1 << 20


class _Entry(Struct, frozen=True):
    """A file, link or folder, by the names on the way to it. ``target``: of a link."""

    path: tuple[str, ...]
    status: os.stat_result
    target: str = ""


def write_folder_image(folder: Path, label: str, image: IO[bytes]) -> None:
    """Write the image of a volume called ``label`` with all that is in ``folder``.

    Links are links in it, wherever they lead; none is followed. Everything belongs to root there, can be read by
    everybody, and be executed if it can be so here.

    :raise HostError: when there is what no image can hold, such as a device file, more than
        :data:`MOST_BYTES`, or what can't be read.
    """
    # Few guests have a disk of a folder.
    from pycdlib.pycdlibexception import PyCdlibException

    try:
        root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise HostError(f"can't open the folder {folder}: {error.strerror}", hint="correct disks") from error
    try:
        entries = _looked_through(folder, root)
        try:
            _write(entries, root, label, image)
        except PyCdlibException as error:
            raise HostError(f"no disk can be made of the folder {folder}: {error}", hint=_BY_HAND) from error
    finally:
        os.close(root)


def _looked_through(folder: Path, root: int) -> list[_Entry]:
    """All that is in the folder, each folder before what is in it.

    :raise HostError: with all that can't be in an image.
    """
    entries: list[_Entry] = []
    problems: list[Problem] = []
    try:
        for entry in _below(root, ()):
            entries.append(entry)
            if len(entries) > MOST_FILES:
                raise HostError(
                    f"the folder {folder} has more than {MOST_FILES} files, links and folders in it",
                    hint=f"put them into an archive, or {_BY_HAND}",
                )
            problems += _problems(entry)
    except OSError as error:
        raise HostError(f"can't look through the folder {folder}: {error}", hint="change its permissions") from error
    size = sum(entry.status.st_size for entry in entries if stat.S_ISREG(entry.status.st_mode))
    if size > MOST_BYTES:
        problems.append(Problem(f"{mebibytes(size)} are in it; at most {format_size(MOST_BYTES)} fit"))
    if problems:
        more = len(problems) - _MOST_NAMED
        named = [*problems[:_MOST_NAMED], *([Problem(f"and {more} more")] if more > 0 else [])]
        raise HostError(
            f"no disk can be made of the folder {folder}",
            problems=named,
            hint=f"leave them out, or {_BY_HAND}",
        )
    return entries


def _below(folder: int, path: tuple[str, ...]) -> Iterator[_Entry]:
    for name in sorted(os.listdir(folder), key=os.fsencode):
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        target = os.readlink(name, dir_fd=folder) if stat.S_ISLNK(status.st_mode) else ""
        yield _Entry((*path, name), status, target)
        if stat.S_ISDIR(status.st_mode):
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            try:
                yield from _below(inner, (*path, name))
            finally:
                os.close(inner)


def _problems(entry: _Entry) -> Iterator[Problem]:
    shown, mode = "/".join(entry.path), entry.status.st_mode
    if not (stat.S_ISDIR(mode) or stat.S_ISLNK(mode)) and (kind := other_kind(entry.status)):
        yield Problem(f"{shown} is {kind}")
    for text in (entry.path[-1], entry.target):
        try:
            if len(text.encode()) > _MOST_NAME_BYTES and text is not entry.target:
                yield Problem(f"{shown} has a name of more than {_MOST_NAME_BYTES} bytes")
        except UnicodeEncodeError:
            yield Problem(f"{os.fsencode(shown)!r} has a name, or a target, that is no UTF-8")


class _Content(RawIOBase):
    """What is in a file, open only as long as it is read: a folder may have more files than a process may open.

    pycdlib seeks in it, and reads it from there to its end.
    """

    def __init__(self, root: int, entry: _Entry) -> None:
        super().__init__()
        self._root = root
        self._entry = entry
        self._offset = 0
        self._file: IO[bytes] | None = None

    def readable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Read on from ``offset`` of the file."""
        self._offset = offset
        return offset

    def read(self, size: int = -1) -> bytes:
        """The next ``size`` bytes.

        :raise HostError: when the file has become shorter since the folder was looked through.
        """
        self._file = self._file or _open_below(self._root, self._entry)
        content = os.pread(self._file.fileno(), size, self._offset)
        self._offset += len(content)
        if len(content) < size:
            raise HostError(f"{'/'.join(self._entry.path)} changed while it was read", hint="try again")
        if self._offset >= self._entry.status.st_size:
            self._release()
        return content

    def close(self) -> None:
        """Close the file."""
        self._release()
        super().close()

    def _release(self) -> None:
        if self._file:
            self._file.close()
            self._file = None


def _open_below(root: int, entry: _Entry) -> IO[bytes]:
    """A file of the folder, and no other that somebody has put in its place since, or that a link leads to.

    :raise HostError: when it can't be read, or is another one.
    """
    shown = "/".join(entry.path)
    with ExitStack() as stack:
        try:
            folder = root
            for name in entry.path[:-1]:
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                folder = os.open(name, flags, dir_fd=folder)
                stack.callback(os.close, folder)
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            fd = os.open(entry.path[-1], flags, dir_fd=folder)
        except OSError as error:
            raise HostError(f"can't read {shown}: {error.strerror}", hint="change its permissions") from error
        file = os.fdopen(fd, "rb")
        if not os.path.samestat(os.fstat(fd), entry.status):
            file.close()
            raise HostError(f"{shown} was exchanged while the folder was looked through", hint="try again")
        return file


def _write(entries: list[_Entry], root: int, label: str, image: IO[bytes]) -> None:
    import pycdlib

    iso = pycdlib.PyCdlib()
    # ISO 9660's own names are numbers: readers take those of Rock Ridge.
    iso.new(interchange_level=3, rock_ridge="1.09", vol_ident=label)
    places: dict[tuple[str, ...], str] = {(): ""}
    with ExitStack() as stack:
        for number, entry in enumerate(entries):
            above, name, mode = places[entry.path[:-1]], entry.path[-1], entry.status.st_mode
            if stat.S_ISDIR(mode):
                places[entry.path] = place = f"{above}/D{number}"
                iso.add_directory(place, rr_name=name, file_mode=_FOLDER_MODE)
            elif stat.S_ISLNK(mode):
                iso.add_symlink(f"{above}/F{number}.;1", rr_symlink_name=name, rr_path=entry.target)
            else:
                content = stack.enter_context(_Content(root, entry))
                executable = 0o111 if mode & 0o111 else 0
                iso.add_fp(
                    cast(BinaryIO, content),
                    entry.status.st_size,
                    f"{above}/F{number}.;1",
                    rr_name=name,
                    file_mode=_FILE_MODE | executable,
                )
        iso.write_fp(cast(BinaryIO, image), blocksize=_BLOCK)
    iso.close()
    image.flush()
    with mmap(image.fileno(), 0) as written:
        fix_dates(written)
