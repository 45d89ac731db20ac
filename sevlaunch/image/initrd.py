"""An initrd with credentials for systemd behind it: what QEMU boots, and what is measured, from one place.

The kernel unpacks one archive after the other, of which each may be compressed in its own way: Linux'
Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from sevlaunch.errors import SevlaunchError, UsageError
from sevlaunch.files import MAX_BOOT_FILE_BYTES
from sevlaunch.opening import open_given

# Where PID 1 looks (systemd 262): src/core/import-creds.c. Modes as those of its src/shared/initrd-cpio.c.
_FOLDERS = ((".extra", 0o555), (".extra/system_credentials", 0o500))
_FILE = ".extra/system_credentials/{}.cred"
_FILE_MODE = 0o400
_MAGIC = b"070701"
_TRAILER = "TRAILER!!!"
_ALIGNMENT = 4
_PIECE = 1 << 20


class _Member(NamedTuple):
    """The numbers of a member's header behind the magic, eight hexadecimal digits each."""

    inode: int
    mode: int
    uid: int
    gid: int
    links: int
    modified: int
    size: int
    device_major: int
    device_minor: int
    special_major: int
    special_minor: int
    name_size: int
    checksum: int


def credentials_archive(credentials: Mapping[str, bytes]) -> bytes:
    """A newc archive with ``credentials``, by their names: all of root, of 1970, in the order of their names."""
    members = [(name, stat.S_IFDIR | mode, b"") for name, mode in _FOLDERS]
    members += [(_FILE.format(name), stat.S_IFREG | _FILE_MODE, credentials[name]) for name in sorted(credentials)]
    packed = [_packed(inode, *member) for inode, member in enumerate(members, start=1)]
    return b"".join((*packed, _packed(0, _TRAILER, 0, b"")))


def _packed(inode: int, name: str, mode: int, content: bytes) -> bytes:
    encoded = name.encode() + b"\0"
    numbers = _Member(inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
    header = _MAGIC + b"".join(b"%08x" % number for number in numbers) + encoded
    return _aligned(header) + _aligned(content)


def _aligned(content: bytes) -> bytes:
    return content + bytes(-len(content) % _ALIGNMENT)


def joined_initrd(
    initrd: Path, credentials: Mapping[str, bytes], *, error: type[SevlaunchError] = UsageError
) -> Iterator[bytes]:
    """The initrd in the file ``initrd`` with ``credentials`` behind it, piece by piece; without any, the file as it is.

    :raise error: when it can't be read, is empty, or larger than anything that QEMU boots.
    """
    archive = credentials_archive(credentials) if credentials else b""
    size = 0
    try:
        with open_given(initrd) as stream:
            while piece := stream.read(_PIECE):
                size += len(piece)
                if size + len(archive) > MAX_BOOT_FILE_BYTES - _ALIGNMENT:
                    raise error(f"initrd: {initrd} has 4 GiB or more, which QEMU can't boot", hint=_ANOTHER)
                yield piece
    except OSError as problem:
        message = f"initrd: can't read {initrd}: {problem.strerror}"
        raise error(message, hint="name a file that is there") from problem
    if not size:
        raise error(f"initrd: {initrd} is empty", hint=_ANOTHER)
    if archive:
        # An archive begins at a multiple of four bytes, whatever is before it.
        yield bytes(-size % _ALIGNMENT) + archive


_ANOTHER = "is it another file?"


def joined_hash(initrd: Path, credentials: Mapping[str, bytes]) -> bytes:
    """SHA-256, 32 bytes, of what :func:`joined_initrd` gives: what is measured.

    :raise UsageError: as :func:`joined_initrd`.
    """
    digest = hashlib.sha256()
    for piece in joined_initrd(initrd, credentials):
        digest.update(piece)
    return digest.digest()
