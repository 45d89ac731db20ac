"""Files that an owner is given and makes: bounded in size, raw or as text, recognised and never guessed."""

from __future__ import annotations

import base64
import binascii
import errno
import hashlib
import os
import re
import shlex
import stat
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sevlaunch.errors import SevlaunchError, UsageError
from sevlaunch.opening import open_given

T = TypeVar("T")

_HEXADECIMAL = rb"(0x)?([0-9a-fA-F]{2})+"
# Base64 and hexadecimal are at most twice as long; line ends and spaces take some more.
_TEXT_FACTOR = 3
_STDIN = Path("-")
_PIECE = 1 << 20
# QEMU's hw/i386/x86-common.c, x86_load_linux: sizes of kernel and initrd fit into 32 bits.
MAX_BOOT_FILE_BYTES = (1 << 32) - 1


def read_bounded(file: Path, what: str, limit: int, *, error: type[SevlaunchError] = UsageError) -> bytes:
    """The content of a file that has at most ``limit`` bytes; more is never read. ``-`` is standard input.

    :param error: what a file that is empty, or has more, raises.
    :raise UsageError: when it can't be read.
    """
    try:
        with open(0, "rb", closefd=False) if file == _STDIN else open_given(file) as stream:
            content = stream.read(limit + 1)
    except (OSError, ValueError) as problem:
        # ValueError: a path with NUL.
        reason = problem.strerror if isinstance(problem, OSError) else problem
        raise UsageError(f"{what}: can't read {file}: {reason}", hint="name a file that is there") from problem
    if not content:
        raise error(f"{what}: {file} is empty", hint="make it again")
    if len(content) > limit:
        raise error(f"{what}: wanted at most {limit} bytes, {file} has more", hint="is it another file?")
    return content


def read_blob(file: Path, what: str, sizes: Collection[int], *, error: type[SevlaunchError] = UsageError) -> bytes:
    """A blob that has one of ``sizes`` bytes, from a file that holds it raw, in base64 or in hexadecimal.

    :param error: what a file raises that holds none, or could be two.
    :raise UsageError: when the file can't be read.
    """
    wanted = " or ".join(str(size) for size in sorted(sizes))

    def sized(content: bytes) -> bytes:
        if len(content) not in sizes:
            raise ValueError(f"that has {len(content)} bytes")
        return content

    return read_as(file, what, max(sizes), sized, wanted=f"{wanted} bytes", error=error)


def read_as(
    file: Path,
    what: str,
    limit: int,
    parse: Callable[[bytes], T],
    *,
    wanted: str,
    error: type[SevlaunchError] = UsageError,
) -> T:
    """What ``parse`` makes of a file that holds up to ``limit`` bytes raw, in base64 or in hexadecimal.

    :param parse: raises ValueError for bytes that are not what is wanted.
    :param wanted: what that is, for messages.
    :param error: what a file raises that holds none, or could be two.
    :raise UsageError: when the file can't be read.
    """
    content = read_bounded(file, what, _TEXT_FACTOR * limit, error=error)
    return recognise(content, parse, name=f"{what}: {file}", wanted=wanted, error=error)


def recognise(
    content: bytes, parse: Callable[[bytes], T], *, name: str, wanted: str, error: type[SevlaunchError] = UsageError
) -> T:
    """What ``parse`` makes of ``content``, which is raw, in base64, base64url or hexadecimal; see :func:`read_as`.

    :param name: what ``content`` is and where it comes from, for messages.
    :raise error: when it is none, or could be two.
    """
    found: list[T] = []
    reason = ""
    for reading in (content, *((decode_text(content) | _decode_base64url(content)) - {content})):
        try:
            found.append(parse(reading))
        except ValueError as problem:
            # Text was decoded: what is wrong with that says more than what is wrong with the text.
            reason = str(problem)
    if not found:
        raise error(
            f"{name}: wanted {wanted}, raw, in base64 or in hexadecimal; found {len(content)} bytes of none: {reason}",
            hint="is it cut short, encoded twice, or another file?",
        )
    if len(found) > 1:
        raise error(f"{name} can be read in more than one way as {wanted}", hint="give the raw bytes")
    return found[0]


def hash_file(file: Path, what: str) -> bytes:
    """SHA-256 of a file, 32 bytes; the file is read in pieces.

    :raise UsageError: when it can't be read, is empty, or larger than anything that QEMU boots.
    """
    digest = hashlib.sha256()
    size = 0
    try:
        # A size that is known beforehand spares reading the whole.
        if file.stat().st_size > MAX_BOOT_FILE_BYTES:
            raise _too_large(file, what)
        with open_given(file) as stream:
            while piece := stream.read(_PIECE):
                size += len(piece)
                if size > MAX_BOOT_FILE_BYTES:
                    raise _too_large(file, what)
                digest.update(piece)
    except OSError as error:
        raise UsageError(
            f"{what}: can't read {file}: {error.strerror}", hint="name a file that is there, or give its hash"
        ) from error
    if not size:
        raise UsageError(f"{what}: {file} is empty", hint="is it another file?")
    return digest.digest()


def _too_large(file: Path, what: str) -> UsageError:
    return UsageError(f"{what}: {file} has 4 GiB or more, which QEMU can't boot", hint="is it another file?")


def decode_text(text: bytes) -> set[bytes]:
    """What base64 or hexadecimal text stands for; empty for anything else, both where both are possible.

    Base64 has one spelling for each content here: the unused bits of its last character are zero.
    """
    compact = b"".join(text.split())
    found: set[bytes] = set()
    with suppress(binascii.Error):
        decoded = base64.b64decode(compact, validate=True)
        if base64.b64encode(decoded) == compact:
            found.add(decoded)
    if re.fullmatch(_HEXADECIMAL, compact):
        found.add(bytes.fromhex(compact.removeprefix(b"0x").decode()))
    return found


def _decode_base64url(text: bytes) -> set[bytes]:
    """What base64url stands for, RFC 4648 section 5, with its padding or without; empty for what base64 is as well."""
    compact = b"".join(text.split())
    digits = compact.rstrip(b"=")
    padded = digits + b"=" * (-len(digits) % 4)
    if compact not in (digits, padded) or (compact == padded and not re.search(rb"[-_]", digits)):
        return set()
    with suppress(binascii.Error):
        decoded = base64.urlsafe_b64decode(padded)
        if base64.urlsafe_b64encode(decoded) == padded:
            return {decoded}
    return set()


def require_private(file: Path, what: str) -> None:
    """Make sure that nobody but its owner may read a file; what is handed over as a descriptor has nobody else.

    :raise UsageError: when others may.
    """
    try:
        status = file.stat()
    except OSError:
        return
    if stat.S_ISREG(status.st_mode) and status.st_mode & 0o077:
        raise UsageError(f"{what}: others may read {file}", hint=f"chmod 600 {shlex.quote(str(file))}")


@dataclass(frozen=True, repr=False)
class NewFile:
    """A file to write; only its owner reads a secret one (0600)."""

    path: Path
    content: bytes
    secret: bool = False


def write_new(files: Sequence[NewFile]) -> None:
    """All of these files, whole, or none of them; none that is there already is overwritten.

    :raise UsageError: when one exists already, or can't be written.
    """
    temporary: list[Path] = []
    written: list[Path] = []
    try:
        for file in files:
            if os.path.lexists(file.path):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(file.path))
            temporary.append(_write_beside(file))
        for file, source in zip(files, temporary, strict=True):
            # Unlike a renamed file, a linked one never takes the place of another.
            os.link(source, file.path)
            written.append(file.path)
    except BaseException as error:
        for path in written:
            path.unlink(missing_ok=True)
        if isinstance(error, FileExistsError):
            there = error.filename2 or error.filename
            raise UsageError(f"{there} exists already", hint="name another file, or remove this one") from error
        if isinstance(error, (OSError, ValueError)):
            reason = error.strerror if isinstance(error, OSError) else error
            raise UsageError(f"can't write {files[len(written)].path}: {reason}") from error
        raise
    finally:
        for path in temporary:
            path.unlink(missing_ok=True)


def _write_beside(file: NewFile) -> Path:
    path = file.path.parent / f".{file.path.name}.{os.urandom(4).hex()}"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600 if file.secret else 0o666)
    try:
        with os.fdopen(fd, "wb") as stream:
            stream.write(file.content)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path
