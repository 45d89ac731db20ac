"""What an OVMF image says of itself: the table of GUIDs at its end, and the SEV metadata that the table leads to.

edk2's OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm and OvmfPkg/ResetVector/X64/OvmfSevMetadata.asm.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple
from uuid import UUID

FOOTER = UUID("96b582de-1fb2-45f7-baea-a366c55a082d")
ES_RESET_BLOCK = UUID("00f771de-1a7e-4fcb-890e-68c77e2fb44e")
SECRET_AREA = UUID("4c2eb361-7d9b-4cc3-8081-127c90d3d294")
HASHES_TABLE = UUID("7255371f-3a3b-4b04-927b-1da6efa8d454")
SEV_METADATA = UUID("dc886566-984a-4798-a75e-5585a7bf67cc")

# The table ends below the reset vector and what follows it.
_BELOW_END = 32
# Each entry stands behind its data: length of both, GUID.
_ENTRY = struct.Struct("<H16s")
# Base and size of an area in the guest's memory.
_AREA = struct.Struct("<II")
# Signature, length, version, number of sections; then the sections: address, length, kind.
_METADATA = struct.Struct("<4sIII")
_SECTION = struct.Struct("<III")
_METADATA_SIGNATURE = b"ASEV"
_METADATA_VERSION = 1
_PAGE = 4096
# Far more than any image names, and little enough to go through page by page.
_MAX_SECTIONS = 256
_MAX_SECTION_BYTES = 1 << 28


class SectionKind(IntEnum):
    """What a page range of an SNP guest is filled with before the launch; the names are edk2's."""

    SNP_SEC_MEM = 1
    SNP_SECRETS = 2
    CPUID = 3
    SVSM_CAA = 4
    SNP_KERNEL_HASHES = 0x10


class Section(NamedTuple):
    """A page range of the guest's memory."""

    gpa: int
    size: int
    kind: SectionKind


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


def secret_area(image: bytes) -> tuple[int, int] | None:
    """Address and size of the area for launch secrets; None when the image has none.

    :raise ValueError: when the table is damaged.
    """
    data = table_of(image).get(SECRET_AREA, b"")
    base, size = _AREA.unpack_from(data) if len(data) >= _AREA.size else (0, 0)
    return (base, size) if base and size else None


def hashes_table_gpa(image: bytes) -> int:
    """Where QEMU puts the hashes of kernel, initrd and command line; 0 when the image has no place for them.

    :raise ValueError: when the table is damaged.
    """
    return int.from_bytes(table_of(image).get(HASHES_TABLE, b"")[:4], "little")


def sev_metadata(image: bytes) -> tuple[Section, ...]:
    """The page ranges that an SNP launch fills, in the order of the metadata; empty for an image without any.

    :raise ValueError: when the table or the metadata is damaged.
    """
    data = table_of(image).get(SEV_METADATA)
    if data is None:
        return ()
    start = len(image) - int.from_bytes(data[:4], "little")
    if not 0 <= start <= len(image) - _METADATA.size:
        raise ValueError("OVMF's table leads to SEV metadata outside the image")
    signature, _, version, count = _METADATA.unpack_from(image, start)
    end = start + _METADATA.size + count * _SECTION.size
    if signature != _METADATA_SIGNATURE or version != _METADATA_VERSION or count > _MAX_SECTIONS or end > len(image):
        raise ValueError("OVMF's SEV metadata is damaged, or of another version")
    return tuple(_section(*fields) for fields in _SECTION.iter_unpack(image[start + _METADATA.size : end]))


def _section(gpa: int, size: int, kind: int) -> Section:
    if gpa % _PAGE or size % _PAGE or size > _MAX_SECTION_BYTES or kind not in set(SectionKind):
        raise ValueError(f"OVMF's SEV metadata has a section of kind {kind} with {size:#x} bytes at {gpa:#x}")
    return Section(gpa, size, SectionKind(kind))
