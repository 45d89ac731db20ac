"""The table of certificates that a host gives with a report: AMD 56421 (GHCB), "SNP Extended Guest Request".

Entries of 24 bytes: GUID (16 bytes in the order of its text), offset from the table's start and length (u32 each); one
of zeroes ends them. On Linux a guest finds it in ``auxblob`` of configfs-tsm, and SNP_GET_EXT_REPORT gives it.
"""

from __future__ import annotations

import struct
from uuid import UUID

_ENTRY = struct.Struct("<16sII")
_GUID_BYTES = 16
_MAX_ENTRIES = 64

# Linux's include/uapi/linux/sev-guest.h and AMD 56421; the ASK's place may hold an ASVK.
KNOWN = {
    UUID("63da758d-e664-4564-adc5-f4b93be8accd"): "VCEK",
    UUID("a8074bc2-a25a-483e-aae6-39c045a0b8a1"): "VLEK",
    UUID("4ab7b379-bbac-4fe4-a02f-05aef327c782"): "ASK",
    UUID("c0b406a4-a803-4952-9743-3fb6014cd0ae"): "ARK",
    UUID("92f81bc3-5811-4d3d-97ff-d19f88dc67ea"): "CRL",
}


def is_table(content: bytes) -> bool:
    """Whether ``content`` begins as a table does that has something known first."""
    return content[:_GUID_BYTES] in {guid.bytes for guid in KNOWN}


def parse_table(content: bytes) -> dict[UUID, bytes]:
    """What the table has under each GUID.

    :raise ValueError: when it is none: it does not end, names one GUID twice, or what lies outside of it.
    """
    found: dict[UUID, bytes] = {}
    for at in range(0, min(len(content), _MAX_ENTRIES * _ENTRY.size) - _ENTRY.size + 1, _ENTRY.size):
        guid, offset, length = _ENTRY.unpack_from(content, at)
        if not any(guid):
            if offset or length:
                raise ValueError("the certificate table ends with an entry that is not zero")
            return found
        one = UUID(bytes=guid)
        if one in found:
            raise ValueError(f"the certificate table has {one} twice")
        if offset + length > len(content) or not length:
            raise ValueError(f"the certificate table says that {one} has {length} bytes at {offset:#x}")
        found[one] = content[offset : offset + length]
    raise ValueError("the certificate table has no end")


def make_table(contents: dict[UUID, bytes]) -> bytes:
    """The table that has ``contents``."""
    offset = (len(contents) + 1) * _ENTRY.size
    head = b""
    for guid, content in contents.items():
        head += _ENTRY.pack(guid.bytes, offset, len(content))
        offset += len(content)
    return head + bytes(_ENTRY.size) + b"".join(contents.values())
