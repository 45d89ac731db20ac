"""Reading what is in a qcow2 image: firmware comes as one, and is measured as what the guest sees of it.

QEMU's docs/interop/qcow2.rst. Snapshots, backing files, encryption and external data are none of firmware's: refused.
Of a disk's image only the header is looked at here, for what QEMU would do because of it.
"""

from __future__ import annotations

import struct
import zlib
from typing import BinaryIO

from msgspec import Struct

MAGIC = b"QFI\xfb"
# QEMU's hw/i386/pc.c, pc_machine_set_max_fw_size: more firmware does not fit below the I/O APIC.
MAX_FLASH_BYTES = 16 << 20

# magic, version, backing file's offset and size, cluster_bits, size, crypt_method, l1_size, l1_table_offset.
_HEADER = struct.Struct(">4sIQIIQIIQ")
# Version 3 adds sets of features behind the fields that are of no use here.
_INCOMPATIBLE_AT = 72
_INCOMPATIBLE = struct.Struct(">Q")
# Dirty: reference counts may be off, which reading does not ask for.
_INCOMPATIBLE_FINE = 1
_ENTRY = struct.Struct(">Q")
# Of an entry of the tables: where in the file its table or cluster is.
_OFFSET = 0x00FF_FFFF_FFFF_FE00
_COMPRESSED = 1 << 62
_ALL_ZEROS = 1
_SECTOR = 512
# Of a disk's image: the header says that reference counts are wrong; the content is in another file; the tables have
# entries of twice the size.
_CORRUPT, _EXTERNAL_DATA, _EXTENDED_L2 = 1 << 1, 1 << 2, 1 << 4
# crypt_method: 1 is QEMU's own of old, which it does not open for guests any more.
_LUKS = 2
# What QEMU's block/qcow2.h and include/block/block-io.h allow: a table of 32 MiB, and sizes that are signed.
_MAX_L1_BYTES, _MAX_SIZE = 32 << 20, (1 << 63) - 1
_CLUSTER_BITS = range(9, 22)
# Clusters are compressed as raw deflate streams with a window of 4 KiB.
_WINDOW_BITS = -12


class Header(Struct, frozen=True):
    """What the header of a disk's image says. ``virtual_size``: bytes of the disk as its guest sees it."""

    version: int
    backing_at: int
    cluster_bits: int
    virtual_size: int
    crypt_method: int
    l1_size: int
    l1_at: int
    features: int

    @classmethod
    def read(cls, head: bytes) -> Header:
        """The header that a qcow2 image begins with; what it is too short for is zero."""
        enough = head.ljust(_INCOMPATIBLE_AT + _INCOMPATIBLE.size, b"\0")
        _, version, backing, _, bits, size, crypt, l1_size, l1_at = _HEADER.unpack_from(enough)
        (features,) = _INCOMPATIBLE.unpack_from(enough, _INCOMPATIBLE_AT)
        return cls(version, backing, bits, size, crypt, l1_size, l1_at, features if version > 2 else 0)

    @property
    def has_luks(self) -> bool:
        """Whether LUKS is inside."""
        return self.crypt_method == _LUKS

    @property
    def leans_on(self) -> str:
        """What other file its content is in; empty where there is none."""
        if self.features & _EXTERNAL_DATA:
            return "a file that its data is in (data-file)"
        return "another image below it (backing file)" if self.backing_at else ""

    def damage(self, file_size: int) -> str:
        """What it says that can't be, of an image in a file of so many bytes; empty where there is nothing."""
        if self.version not in (2, 3):
            return f"its header says version {self.version}, which QEMU does not know"
        if self.features & _CORRUPT:
            return "its header says that it is corrupt"
        if self.cluster_bits not in _CLUSTER_BITS:
            return f"its header says clusters of 2^{self.cluster_bits} bytes, which there are not"
        cluster, table = 1 << self.cluster_bits, self.l1_size * _ENTRY.size
        entries = cluster // (_ENTRY.size * (2 if self.features & _EXTENDED_L2 else 1))
        if self.virtual_size > min(_MAX_SIZE, self.l1_size * cluster * entries) or table > _MAX_L1_BYTES:
            return f"its header says {self.virtual_size} bytes, for which its table has no place"
        if self.l1_at % cluster or self.l1_at + table > file_size:
            return "its table is not in the file"
        return ""


class Qcow2:
    """The content of a qcow2 image.

    :param file: the image; is read, never written.
    :raise ValueError: when it is none, is damaged, or needs more than the file itself.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        header = self._bytes(0, _HEADER.size)
        magic, version, backing, _, bits, self.size, crypt, self._l1_size, self._l1_at = _HEADER.unpack(header)
        if magic != MAGIC or version not in (2, 3) or bits not in _CLUSTER_BITS:
            raise ValueError("no qcow2 image, or a damaged one")
        features = 0
        if version == 3:
            (features,) = _INCOMPATIBLE.unpack(self._bytes(_INCOMPATIBLE_AT, _INCOMPATIBLE.size))
        needs_more = {
            "a backing file": backing,
            "a key": crypt,
            "features that are not known": features & ~_INCOMPATIBLE_FINE,
        }
        for what, is_so in needs_more.items():
            if is_so:
                raise ValueError(f"a qcow2 image with {what}")
        self._bits = bits

    def read(self, offset: int, length: int) -> bytes:
        """What the guest sees from ``offset`` on, up to the image's end.

        :raise ValueError: when the image is damaged.
        """
        end = min(self.size, offset + length)
        cluster = 1 << self._bits
        pieces: list[bytes] = []
        while offset < end:
            within = offset % cluster
            piece = self._cluster(offset >> self._bits)[within : within + end - offset]
            pieces.append(piece)
            offset += len(piece)
        return b"".join(pieces)

    def whole(self, limit: int) -> bytes:
        """All that the guest sees.

        :raise ValueError: when that is more than ``limit`` bytes, or the image is damaged.
        """
        if self.size > limit:
            raise ValueError(f"a qcow2 image of {self.size} bytes: wanted at most {limit}")
        return self.read(0, self.size)

    def _cluster(self, number: int) -> bytes:
        size = 1 << self._bits
        table, index = divmod(number, size // _ENTRY.size)
        if table >= self._l1_size:
            raise ValueError("a qcow2 image whose table is too short")
        l2_at = self._entry(self._l1_at + table * _ENTRY.size) & _OFFSET
        entry = self._entry(l2_at + index * _ENTRY.size) if l2_at else 0
        if entry & _COMPRESSED:
            return self._inflated(entry)
        at = entry & _OFFSET
        # The last cluster of a file may be cut where its content ends.
        return self._bytes(at, size, cut=True) if at and not entry & _ALL_ZEROS else bytes(size)

    def _inflated(self, entry: int) -> bytes:
        size = 1 << self._bits
        offset_bits = 62 - (self._bits - 8)
        at = entry & ((1 << offset_bits) - 1)
        sectors = (entry & (_COMPRESSED - 1)) >> offset_bits
        packed = self._bytes(at, (sectors + 1) * _SECTOR - at % _SECTOR, cut=True)
        try:
            content = zlib.decompressobj(_WINDOW_BITS).decompress(packed, size)
        except zlib.error as error:
            raise ValueError(f"a qcow2 image with a damaged cluster: {error}") from error
        if len(content) != size:
            raise ValueError("a qcow2 image with a damaged cluster")
        return content

    def _entry(self, at: int) -> int:
        (value,) = _ENTRY.unpack(self._bytes(at, _ENTRY.size))
        return int(value)

    def _bytes(self, at: int, length: int, *, cut: bool = False) -> bytes:
        # No table of the format reaches further, and no file.
        self._file.seek(min(at, _OFFSET))
        content = self._file.read(length)
        if len(content) < length and not cut:
            raise ValueError("a qcow2 image that ends too early")
        return content.ljust(length, b"\0")
