"""Reading files of a FAT file system: Microsoft's "FAT: General Overview of On-Disk Format", as in UEFI, 13.3."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from sevlaunch.contents.volume import Volume, exactly

# Jump, who made it, bytes of a sector, sectors of a cluster, reserved sectors, tables, entries of the root folder,
# sectors (if they fit), medium, sectors of a table, of a track, heads, hidden sectors, sectors.
_BOOT = struct.Struct("<3s8sHBHBHHBHHHII")
# FAT32 goes on: sectors of a table, flags, version, cluster of the root folder, ... boot signature, ID, label.
_BOOT32 = struct.Struct("<IHHI18xBI11s")
# FAT12 and FAT16: drive, reserved, boot signature, ID, label.
_BOOT16 = struct.Struct("<BBBI11s")
# Name, attributes, cases, times, the cluster's upper half, time and date, its lower half, size.
_ENTRY = struct.Struct("<8s3sBB7xH4xHI")
_LONG = struct.Struct("<B10sBBB12sH4s")
_LONG_NAME, _FOLDER, _LABEL = 0x0F, 0x10, 0x08
_END, _DELETED = 0x00, 0xE5
_LAST_PART = 0x40
_LOWER_NAME, _LOWER_ENDING = 0x08, 0x10
# How many clusters make it FAT16, and FAT32.
_FAT16, _FAT32 = 4085, 65525
_MOST_FOLDER_BYTES = 4 << 20
# Enough for FAT32 of half a terabyte.
_MOST_TABLE_BYTES = 64 << 20
_SIGNATURE_AT, _SIGNATURE = 510, b"\x55\xaa"


class _File(NamedTuple):
    name: str
    folder: bool
    cluster: int
    size: int


class Fat:
    """A FAT file system. Names are found whatever their case, as UEFI finds them.

    :raise ValueError: when ``volume`` has none.
    """

    kind = "FAT"

    def __init__(self, volume: Volume) -> None:
        head = exactly(volume, 0, 512)
        _, _, sector, per_cluster, reserved, tables, entries, few, _, per_table, _, _, _, many = _BOOT.unpack_from(head)
        if (
            head[_SIGNATURE_AT:] != _SIGNATURE
            or sector not in (512, 1024, 2048, 4096)
            or per_cluster not in (1, 2, 4, 8, 16, 32, 64, 128)
            or not reserved
            or tables not in (1, 2)
        ):
            raise ValueError("no FAT file system")
        large = _BOOT32.unpack_from(head, _BOOT.size)
        table_bytes = (per_table or large[0]) * sector
        root_bytes = -(-entries * _ENTRY.size // sector) * sector
        self._volume = volume
        self._cluster_bytes: int = per_cluster * sector
        self._table_at = reserved * sector
        self._root_at = self._table_at + tables * table_bytes
        self._data_at: int = self._root_at + root_bytes
        clusters = ((few or many) * sector - self._data_at) // self._cluster_bytes
        if clusters <= 0 or table_bytes > _MOST_TABLE_BYTES:
            raise ValueError("no FAT file system, or one that is damaged")
        self._bits = 32 if clusters >= _FAT32 else 16 if clusters >= _FAT16 else 12
        self._clusters = min(clusters, table_bytes * 8 // self._bits - 2)
        self._root_bytes = root_bytes
        self._root = large[3] if self._bits == 32 else 0
        _, number, label = large[4:] if self._bits == 32 else _BOOT16.unpack_from(head, _BOOT.size)[2:]
        self.uuid = f"{number >> 16:04X}-{number & 0xFFFF:04X}"
        self.label = label.decode("ascii", "replace").rstrip(" \0")
        self.caution = ""
        self._table: bytes | None = None

    def names(self, folder: str) -> list[str]:
        """The names in a folder; [] where there is none."""
        found = self._find(folder)
        return [one.name for one in self._folder(found)] if found and found.folder else []

    def is_file(self, path: str) -> bool:
        """Whether there is such a file."""
        found = self._find(path)
        return found is not None and not found.folder

    def read(self, path: str, limit: int) -> bytes | None:
        """The content of a file; None where there is none.

        :raise ValueError: when it has more than ``limit`` bytes, or is damaged.
        """
        found = self._find(path)
        if found is None or found.folder:
            return None
        if found.size > limit:
            raise ValueError(f"{path} has {found.size} bytes, and at most {limit} are read")
        content = self._chain(found.cluster, found.size) if found.size else b""
        if len(content) < found.size:
            raise ValueError(f"{path} is damaged: its clusters end too early")
        return content[: found.size]

    def _find(self, path: str) -> _File | None:
        found = _File("", True, self._root, 0)
        for part in path.replace("\\", "/").split("/"):
            if not part:
                continue
            if not found.folder:
                return None
            wanted = part.casefold()
            inside = next((one for one in self._folder(found) if one.name.casefold() == wanted), None)
            if inside is None:
                return None
            found = inside
        return found

    def _folder(self, folder: _File) -> Iterator[_File]:
        """What is in a folder, without itself and the one above."""
        if folder.cluster == 0 and self._bits != 32:
            content = exactly(self._volume, self._root_at, self._root_bytes)
        else:
            content = self._chain(folder.cluster or self._root, _MOST_FOLDER_BYTES)
        long = ""
        for at in range(0, len(content) - _ENTRY.size + 1, _ENTRY.size):
            name, ending, attributes, cases, upper, lower, size = _ENTRY.unpack_from(content, at)
            if name[0] == _END:
                return
            if name[0] == _DELETED:
                long = ""
            elif attributes & 0x3F == _LONG_NAME:
                order, first, _, _, _, second, _, third = _LONG.unpack_from(content, at)
                piece = (first + second + third).decode("utf-16-le", "replace").split("\0")[0].rstrip("\uffff")
                long = piece if order & _LAST_PART else piece + long
            elif not attributes & _LABEL:
                short = _short(name, ending, cases)
                if short not in (".", ".."):
                    yield _File(long or short, bool(attributes & _FOLDER), (upper << 16) | lower, size)
                long = ""

    def _chain(self, cluster: int, wanted: int) -> bytes:
        """The content of a chain of clusters, until it ends or ``wanted`` bytes are there."""
        pieces: list[bytes] = []
        have = 0
        while have < wanted and 2 <= cluster < self._clusters + 2:
            # Neighbours are read together: images are compressed in larger pieces.
            first, count = cluster, 1
            while have + count * self._cluster_bytes < wanted:
                cluster = self._next(first + count - 1)
                if cluster != first + count:
                    break
                count += 1
            else:
                cluster = 0
            pieces.append(exactly(self._volume, self._at(first), count * self._cluster_bytes))
            have += count * self._cluster_bytes
        return b"".join(pieces)

    def _at(self, cluster: int) -> int:
        return self._data_at + (cluster - 2) * self._cluster_bytes

    def _next(self, cluster: int) -> int:
        if self._table is None:
            bits = (self._clusters + 2) * self._bits
            self._table = exactly(self._volume, self._table_at, -(-bits // 8)) + bytes(4)
        at = cluster * self._bits // 8
        value = int.from_bytes(self._table[at : at + 4], "little")
        if self._bits == 32:
            return value & 0x0FFF_FFFF
        if self._bits == 16:
            return value & 0xFFFF
        return value >> (4 if cluster % 2 else 0) & 0xFFF


def _short(name: bytes, ending: bytes, cases: int) -> str:
    # 0x05 stands for a first letter that would look like a deleted entry.
    first = b"\xe5" + name[1:] if name[0] == 0x05 else name
    base, extra = first.decode("cp437").rstrip(), ending.decode("cp437").rstrip()
    base = base.lower() if cases & _LOWER_NAME else base
    extra = extra.lower() if cases & _LOWER_ENDING else extra
    return f"{base}.{extra}" if extra else base
