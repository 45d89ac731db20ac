"""Files that an owner is given: bounded in size, raw or as text, recognised and never guessed."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from sevlaunch.errors import UsageError

_HEXADECIMAL = re.compile(rb"(0x)?([0-9a-fA-F]{2})+")
# Base64 and hexadecimal are at most twice as long; line ends and spaces take some more.
_TEXT_FACTOR = 3
_STDIN = Path("-")
_PIECE = 1 << 20
# QEMU's hw/i386/x86-common.c, x86_load_linux: sizes of kernel and initrd fit into 32 bits.
MAX_BOOT_FILE_BYTES = (1 << 32) - 1


def read_bounded(file: Path, what: str, limit: int) -> bytes:
    """The content of a file that has at most ``limit`` bytes; more is never read. ``-`` is standard input.

    :raise UsageError: when it can't be read, is empty, or has more.
    """
    try:
        with open(0 if file == _STDIN else file, "rb", closefd=file != _STDIN) as stream:
            content = stream.read(limit + 1)
    except OSError as error:
        raise UsageError(f"{what}: can't read {file}: {error.strerror}", hint="name a file that is there") from error
    if not content:
        raise UsageError(f"{what}: {file} is empty", hint="make it again")
    if len(content) > limit:
        raise UsageError(f"{what}: wanted at most {limit} bytes, {file} has more", hint="is it another file?")
    return content


def read_blob(file: Path, what: str, sizes: Collection[int]) -> bytes:
    """A blob that has one of ``sizes`` bytes, from a file that holds it raw, in base64 or in hexadecimal.

    :raise UsageError: when it is none of these, or could be two.
    """
    content = read_bounded(file, what, _TEXT_FACTOR * max(sizes))
    found = {blob for blob in _readings(content) if len(blob) in sizes}
    wanted = " or ".join(str(size) for size in sorted(sizes))
    if not found:
        raise UsageError(
            f"{what}: wanted {wanted} bytes, raw, in base64 or in hexadecimal; {file} has {len(content)} bytes of none",
            hint="is it cut short, encoded twice, or another file?",
        )
    if len(found) > 1:
        raise UsageError(
            f"{what}: {file} can be read in more than one way as {wanted} bytes", hint="give the raw bytes"
        )
    return found.pop()


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
        with file.open("rb") as stream:
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
    """What base64 or hexadecimal text stands for; empty for anything else, both where both are possible."""
    compact = b"".join(text.split())
    found: set[bytes] = set()
    with suppress(binascii.Error):
        found.add(base64.b64decode(compact, validate=True))
    if _HEXADECIMAL.fullmatch(compact):
        found.add(bytes.fromhex(compact.removeprefix(b"0x").decode()))
    return found


def _readings(content: bytes) -> set[bytes]:
    return {content, *decode_text(content)}


def write_secret(file: Path, content: bytes) -> None:
    """A new file that only its owner reads (0600).

    :raise UsageError: when it exists already, or can't be written.
    """
    try:
        fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        raise UsageError(f"{file} exists already", hint="name another file, or remove this one") from error
    except OSError as error:
        raise UsageError(f"can't write {file}: {error.strerror}") from error
    try:
        with os.fdopen(fd, "wb") as stream:
            stream.write(content)
    except OSError as error:
        file.unlink(missing_ok=True)
        raise UsageError(f"can't write {file}: {error.strerror}") from error
