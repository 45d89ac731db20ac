"""A download that goes on where it was cut, whatever cut it."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path

import msgspec
from msgspec import Struct

from sevlaunch.documents import decode
from sevlaunch.errors import ImageError
from sevlaunch.image.proof import FetchOptions
from sevlaunch.image.store import PARTIAL, PARTIAL_NOTES
from sevlaunch.image.web import Answer, Broken, Line, request
from sevlaunch.units import mebibytes

# More than any publisher's image.
MAX_IMAGE = 128 << 30
_RANGE = re.compile(r"bytes ([0-9]{1,15})-[0-9]{1,15}/([0-9]{1,15})")
_NO_RANGE = re.compile(r"bytes \*/([0-9]{1,15})")
_MAX_NOTES = 64 << 10
_SPACE = "free some space there, or set XDG_CACHE_HOME to a folder with more of it"
_LYING = "the server's length is wrong, or the file is cut there: try another mirror"


class Reports(Struct, frozen=True):
    """Whom a download tells how it gets on.

    ``progress`` gets the bytes that are there and those that there will be, ``told`` a sentence.
    """

    progress: Callable[[int, int], None] = lambda done, total: None
    told: Callable[[str], None] = lambda text: None


class Notes(Struct, frozen=True):
    """Of a download that was begun: whose it is, how many bytes it has, and what tells that it is still the same."""

    url: str
    total: int
    validator: str


def download(
    url: str,
    entry: Path,
    line: Line,
    options: FetchOptions,
    *,
    size: int | None = None,
    reports: Reports = Reports(),  # noqa: B008 - it can't be changed
) -> bool:
    """Bring the file to the folder's ``partial``, whole; the caller has the lock of the folder.

    :param size: what the publisher says that it has, in bytes.
    :return: whether it came in several parts, which may be of several files.
    :raise ImageError: when it can't be had.
    """
    best = _kept(entry, url)
    tries, taken_up = 0, best > 0
    while True:
        try:
            _take_up(url, entry, line, size, reports.progress)
            return taken_up
        except Broken as error:
            have = _kept(entry, url)
            tries = 0 if have > best else tries + 1
            best, taken_up = max(best, have), taken_up or have > 0
            if tries >= options.tries:
                raise
            reports.told(f"{error.message}; trying again")
            line.pause(options.first_wait * 2**tries)


def forget(entry: Path) -> None:
    """Let the next download begin anew."""
    for name in (PARTIAL_NOTES, PARTIAL):
        (entry / name).unlink(missing_ok=True)


def _take_up(url: str, entry: Path, line: Line, size: int | None, progress: Callable[[int, int], None]) -> None:
    have, notes = _kept(entry, url), _read_notes(entry, url)
    headers = {}
    if have:
        headers["Range"] = f"bytes={have}-"
        if notes and notes.validator:
            headers["If-Range"] = notes.validator
    with request(url, line, headers) as answer:
        start, total = _extent(answer, entry, have, notes)
        if size is not None and total != size:
            forget(entry)
            raise ImageError(
                f"{url}: the publisher says that it has {size} bytes, the server promises {total}", hint=_LYING
            )
        if start == total:
            return
        _check_space(entry, total - start)
        try:
            if not start:
                # One that was whole can't be written any more.
                (entry / PARTIAL).unlink(missing_ok=True)
            fd = os.open(entry / PARTIAL, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(fd, "wb", buffering=0) as stream:
                stream.truncate(start)
                stream.seek(start)
                _write_notes(entry, Notes(url, total, _validator(answer)))
                for piece in answer.pieces():
                    start += len(piece)
                    if start > total:
                        raise ImageError(f"{url}: the server promises {total} bytes, and sends more", hint=_LYING)
                    _write(stream.fileno(), piece)
                    progress(start, total)
        except OSError as error:
            hint = _SPACE if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
            raise ImageError(f"can't write {entry / PARTIAL}: {error.strerror}", hint=hint) from error
    if start < total:
        raise Broken(f"{url} breaks off: {total} bytes were promised, {start} came", hint=f"try again; or {_LYING}")


def _write(fd: int, piece: bytes) -> None:
    rest = memoryview(piece)
    while rest:
        rest = rest[os.write(fd, rest) :]


def _extent(answer: Answer, entry: Path, have: int, notes: Notes | None) -> tuple[int, int]:
    """Where the answer begins in the file, and how many bytes the file has.

    :raise ImageError: when the server does not say, or says too much; :class:`Broken` when what it says does not fit
        what has come, which is then forgotten.
    """
    if answer.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        match = _NO_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        if match and int(match[1]) == have:
            return have, have
        forget(entry)
        raise Broken(f"{answer.url} is another file than before")
    start, total = 0, answer.length
    if answer.status == HTTPStatus.PARTIAL_CONTENT:
        part = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        if part is None or notes is None or (int(part[1]), int(part[2])) != (have, notes.total):
            forget(entry)
            raise Broken(f"{answer.url}: the server sends another part than what was asked for")
        start, total = have, int(part[2])
    if total is None:
        raise ImageError(
            f"{answer.url}: the server does not say how long it is (Content-Length)", hint="name another mirror"
        )
    if not 0 < total <= MAX_IMAGE:
        raise ImageError(f"{answer.url}: wanted an image of at most {MAX_IMAGE >> 30} GiB, found {total} bytes")
    return start, total


def _check_space(entry: Path, wanted: int) -> None:
    found = os.statvfs(entry)
    free = found.f_bavail * found.f_frsize
    if free < wanted:
        message = f"no space for it in {entry}: wanted {mebibytes(wanted)}, {free >> 20} MiB are free"
        raise ImageError(message, hint=_SPACE)


def _validator(answer: Answer) -> str:
    """What If-Range takes (RFC 9110, 13.1.5): a strong entity tag, or a date."""
    tag = answer.headers.get("ETag", "").strip()
    found = tag if tag.startswith('"') else answer.headers.get("Last-Modified", "").strip()
    return found if found.isprintable() and found.isascii() else ""


def _kept(entry: Path, url: str) -> int:
    """How many bytes of it have come."""
    if _read_notes(entry, url) is None:
        return 0
    with suppress(FileNotFoundError):
        return (entry / PARTIAL).lstat().st_size
    return 0


def _write_notes(entry: Path, notes: Notes) -> None:
    """Not whole or not at all: notes that can't be read are as good as none."""
    fd = os.open(entry / PARTIAL_NOTES, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "wb") as stream:
        stream.write(msgspec.json.encode(notes))


def _read_notes(entry: Path, url: str) -> Notes | None:
    """The notes of a download from there; none that can be read are as good as none."""
    with suppress(OSError, ValueError):
        fd = os.open(entry / PARTIAL_NOTES, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as stream:
            notes = decode(stream.read(_MAX_NOTES), Notes)
        return notes if notes.url == url else None
    return None
