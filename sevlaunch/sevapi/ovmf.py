"""The table of GUIDs at the end of an OVMF image: edk2's OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm."""

from __future__ import annotations

import struct
from uuid import UUID

FOOTER = UUID("96b582de-1fb2-45f7-baea-a366c55a082d")
ES_RESET_BLOCK = UUID("00f771de-1a7e-4fcb-890e-68c77e2fb44e")
SECRET_AREA = UUID("4c2eb361-7d9b-4cc3-8081-127c90d3d294")
HASHES_TABLE = UUID("7255371f-3a3b-4b04-927b-1da6efa8d454")

# The table ends below the reset vector and what follows it.
_BELOW_END = 32
# Each entry stands behind its data: length of both, GUID.
_ENTRY = struct.Struct("<H16s")


def table_of(image: bytes) -> dict[UUID, bytes]:
    """The data of each entry by GUID; empty for an image without a table.

    :raise ValueError: when the table is damaged.
    """
    start = len(image) - _BELOW_END - _ENTRY.size
    if start < 0:
        return {}
    length, guid = _ENTRY.unpack_from(image, start)
    if UUID(bytes_le=guid) != FOOTER:
        return {}
    rest = image[max(0, start + _ENTRY.size - length) : start]
    table: dict[UUID, bytes] = {}
    while len(rest) >= _ENTRY.size:
        length, guid = _ENTRY.unpack_from(rest, len(rest) - _ENTRY.size)
        if not _ENTRY.size <= length <= len(rest):
            raise ValueError(f"an entry of OVMF's table has length {length}")
        table[UUID(bytes_le=guid)] = rest[len(rest) - length : len(rest) - _ENTRY.size]
        rest = rest[: len(rest) - length]
    return table


def es_reset_eip(image: bytes) -> int:
    """Where the other vCPUs of a SEV-ES guest start; 0 when the image does not say.

    :raise ValueError: when the table is damaged.
    """
    return int.from_bytes(table_of(image).get(ES_RESET_BLOCK, b"")[:4], "little")
