"""The partitions of a disk: GPT (UEFI specification, 5.3), the primary ones of an MBR, or one file system alone."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple
from uuid import UUID

from sevlaunch.contents.volume import Part, Volume, exactly

# Types of the UEFI specification, and of the Discoverable Partitions Specification.
ESP = UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
XBOOTLDR = UUID("bc13c2ff-59e6-4262-a352-b275fd6f7172")

# Signature, revision, header size, its CRC32, reserved, its own place, the other's, first and last usable block, the
# disk's GUID, where the table is, how many entries of how many bytes, and their CRC32.
_GPT = struct.Struct("<8sIIIIQQQQ16sQIII")
_GPT_CRC_AT = 16
# Type, GUID, first and last block, attributes, name in UTF-16.
_GPT_ENTRY = struct.Struct("<16s16sQQQ72s")
_SIGNATURE = b"EFI PART"
_SECTORS = (512, 4096)
_MOST_TABLE_BYTES = 1 << 20

# Status, place in cylinders, type, the end in cylinders, first sector, how many.
_MBR_ENTRY = struct.Struct("<B3sB3sII")
_MBR_AT, _MBR_ENTRIES, _MBR_END = 446, 4, b"\x55\xaa"
_MBR_ESP, _MBR_BOOT = 0xEF, 0xEA


class Partition(NamedTuple):
    """``number`` from 1; 0: the whole disk. ``kind``: :data:`ESP`, :data:`XBOOTLDR`, another type; None: not told."""

    number: int
    kind: UUID | None
    guid: str
    name: str
    content: Volume

    @property
    def title(self) -> str:
        """What it is called in messages."""
        return f"partition {self.number}" if self.number else "the disk"


def partitions(disk: Volume) -> list[Partition]:
    """All partitions of a disk, in the order of their numbers.

    :raise ValueError: when the table is damaged.
    """
    for sector in _SECTORS:
        head = disk.read(sector, _GPT.size)
        if head.startswith(_SIGNATURE) and len(head) == _GPT.size:
            return list(_gpt(disk, sector, head))
    return list(_mbr(disk)) or [Partition(0, None, "", "", disk)]


def _gpt(disk: Volume, sector: int, head: bytes) -> Iterator[Partition]:
    _, _, size, crc, _, _, _, _, _, _, table_at, count, entry_size, table_crc = _GPT.unpack(head)
    if not _GPT.size <= size <= sector or not _GPT_ENTRY.size <= entry_size or count * entry_size > _MOST_TABLE_BYTES:
        raise ValueError("its GPT has sizes that can't be")
    header = bytearray(exactly(disk, sector, size))
    header[_GPT_CRC_AT : _GPT_CRC_AT + 4] = bytes(4)
    table = exactly(disk, table_at * sector, count * entry_size)
    if zlib.crc32(header) != crc or zlib.crc32(table) != table_crc:
        raise ValueError("its GPT is damaged: a checksum is wrong")
    for number in range(1, count + 1):
        kind, guid, first, last, _, name = _GPT_ENTRY.unpack_from(table, (number - 1) * entry_size)
        if any(kind) and first <= last:
            content = Part(disk, first * sector, (last - first + 1) * sector)
            text = name.decode("utf-16-le", "replace").split("\0")[0]
            yield Partition(number, UUID(bytes_le=kind), str(UUID(bytes_le=guid)), text, content)


def _mbr(disk: Volume) -> Iterator[Partition]:
    # A FAT file system ends its first sector so, too; what would be its entries there is code, or zeros.
    sector = disk.read(0, _SECTORS[0])
    if not sector.endswith(_MBR_END) or len(sector) < _SECTORS[0]:
        return
    entries = [_MBR_ENTRY.unpack_from(sector, _MBR_AT + index * _MBR_ENTRY.size) for index in range(_MBR_ENTRIES)]
    if any(status not in (0, 0x80) or (kind and not count) for status, _, kind, _, _, count in entries):
        return
    disk_id = sector[440:444][::-1].hex()
    for number, (_, _, kind, _, first, count) in enumerate(entries, 1):
        if kind:
            known = ESP if kind == _MBR_ESP else XBOOTLDR if kind == _MBR_BOOT else None
            content = Part(disk, first * _SECTORS[0], count * _SECTORS[0])
            yield Partition(number, known, f"{disk_id}-{number:02x}", "", content)
