"""Which file system a partition has: those that are read here, and the names of those that are not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol
from uuid import UUID

from sevlaunch.contents.ext4 import Ext4
from sevlaunch.contents.fat import Fat
from sevlaunch.contents.volume import Volume


class FileSystem(Protocol):
    """``caution``: what makes its content doubtful, or empty."""

    kind: str
    uuid: str
    label: str
    caution: str

    def names(self, folder: str) -> list[str]:
        """The names in a folder; [] where there is none."""
        raise NotImplementedError

    def is_file(self, path: str) -> bool:
        """Whether there is such a file."""
        raise NotImplementedError

    def read(self, path: str, limit: int) -> bytes | None:
        """The content of a file; None where there is none.

        :raise ValueError: when it has more than ``limit`` bytes, or can't be read.
        """
        raise NotImplementedError


class Unread(NamedTuple):
    """A file system, or something else, that is not read here. ``why``: where it is no matter of its kind."""

    kind: str
    uuid: str = ""
    label: str = ""
    why: str = ""


# What they are called, where their magic is, and where UUID and label (with its bytes) are, as libblkid knows them.
_OTHERS: tuple[tuple[str, int, bytes, int, int, int], ...] = (
    ("LUKS", 0, b"LUKS\xba\xbe", 0, 0, 0),
    ("xfs", 0, b"XFSB", 32, 108, 12),
    ("btrfs", 0x10040, b"_BHRfS_M", 0x10020, 0x1012B, 256),
    ("LVM", 512, b"LABELONE", 0, 0, 0),
    ("LVM", 0, b"LABELONE", 0, 0, 0),
    ("f2fs", 1024, b"\x10\x20\xf5\xf2", 1132, 0, 0),
    ("erofs", 1024, b"\xe2\xe1\xf5\xe0", 1072, 1088, 16),
    ("squashfs", 0, b"hsqs", 0, 0, 0),
    ("dm-verity hashes", 0, b"verity\0\0", 0, 0, 0),
    ("swap", 4086, b"SWAPSPACE2", 1036, 1052, 16),
    ("bcachefs", 4120, bytes.fromhex("c68573f64e1a45ca8265f57f48ba6d81"), 0, 0, 0),
    ("ZFS", 0x20000, b"\x0c\xb1\xba\0", 0, 0, 0),
    ("ISO 9660", 0x8001, b"CD001", 0, 0, 0),
    ("NTFS", 3, b"NTFS    ", 0, 0, 0),
)


def file_system(volume: Volume) -> FileSystem | Unread:
    """The file system of a partition.

    :raise ValueError: when the image that it is in is damaged.
    """
    for name, at, magic, uuid_at, label_at, label_bytes in _OTHERS:
        if volume.read(at, len(magic)) == magic:
            uuid = volume.read(uuid_at, 16) if uuid_at else b""
            label = volume.read(label_at, label_bytes).split(b"\0")[0].decode(errors="replace") if label_at else ""
            return Unread(name, str(UUID(bytes=uuid)) if len(uuid) == 16 else "", label)
    reasons: list[str] = []
    for reader in (Ext4, Fat):
        try:
            return reader(volume)
        except ValueError as error:
            reasons.append(str(error))
    unusual = next((reason for reason in reasons if not reason.startswith("no ") and "too early" not in reason), "")
    return Unread("something that is not known here", why=unusual)


def walk(system: FileSystem, folder: str, endings: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """The files of a folder whose names end so, as names and paths; endings in small letters."""
    for name in system.names(folder):
        if name.lower().endswith(endings):
            yield name, f"{folder}/{name}"
