"""dm-verity: the superblock in front of a hash tree, the tree's layout, its root, and whether data is what it says.

The superblock is that of cryptsetup (lib/verity/verity.c, struct verity_sb); the tree that of the kernel's
Documentation/admin-guide/device-mapper/verity.rst, hash type 1.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from typing import NamedTuple, Protocol

MAGIC = b"verity\0\0"
# signature, version, hash_type, uuid, algorithm, data_block_size, hash_block_size, data_blocks, salt_size, salt.
_LAYOUT = struct.Struct("<8sII16s32sIIQH6x256s168x")
SUPERBLOCK_BYTES = _LAYOUT.size
_VERSION, _NORMAL = 1, 1
# Those that no collision of is known; the kernel knows more.
ALGORITHMS = ("sha256", "sha512")
# The kernel's drivers/md/dm-verity-target.c takes no block that is larger than a page.
_BLOCK_SIZES = (512, 1024, 2048, 4096)
# An appended superblock is looked for at multiples of this.
ALIGNMENT = 4096
_MOST_SALT = 256
# Bytes of data that are read at once.
_PIECE = 1 << 20


class Content(Protocol):
    """What a disk has in it, whatever the format of its image. Both raise OSError and ValueError."""

    size: int

    def read(self, offset: int, length: int) -> bytes:
        """What is there from ``offset`` on, up to the end."""


class Superblock(NamedTuple):
    """What a superblock says. Sizes of blocks in bytes."""

    uuid: bytes
    algorithm: str
    data_block_size: int
    hash_block_size: int
    data_blocks: int
    salt: bytes

    @classmethod
    def from_bytes(cls, content: bytes) -> Superblock:
        """The superblock that ``content`` begins with.

        :raise ValueError: when there is none, or one of another kind.
        """
        if not content.startswith(MAGIC) or len(content) < SUPERBLOCK_BYTES:
            raise ValueError("no verity superblock is there")
        (_, version, kind, uuid, algorithm, data_block, hash_block, blocks, salt_size, salt) = _LAYOUT.unpack_from(
            content
        )
        name = algorithm.split(b"\0")[0].decode("ascii", "backslashreplace")
        if (version, kind) != (_VERSION, _NORMAL):
            raise ValueError(f"a verity superblock of version {version} and hash type {kind}: wanted 1 and 1")
        if name not in ALGORITHMS:
            raise ValueError(f"a hash tree of {name!r}: wanted {' or '.join(ALGORITHMS)}")
        if data_block not in _BLOCK_SIZES or hash_block not in _BLOCK_SIZES:
            raise ValueError(f"verity blocks of {data_block} and {hash_block} bytes: wanted 512 to 4096")
        if not blocks or blocks * data_block >= 1 << 63:
            raise ValueError(f"a verity superblock for {blocks} blocks of data")
        if salt_size > _MOST_SALT:
            raise ValueError(f"a verity superblock with a salt of {salt_size} bytes: wanted at most {_MOST_SALT}")
        return cls(uuid, name, data_block, hash_block, blocks, salt[:salt_size])

    @property
    def data_bytes(self) -> int:
        """Of how much data the tree is."""
        return self.data_blocks * self.data_block_size

    @property
    def digest_bytes(self) -> int:
        """Of a digest; the place of one in a block has a power of two of them."""
        return hashlib.new(self.algorithm).digest_size


class Level(NamedTuple):
    """A level of the tree: where its blocks begin on the hash device, in bytes, and how many there are."""

    offset: int
    blocks: int


class Difference(Exception):
    """The first block that is not what the level above it says. ``level``: -1 is the data, 0 the tree's lowest."""

    def __init__(self, level: int, block: int) -> None:
        super().__init__(level, block)
        self.level = level
        self.block = block


class Tree:
    """A hash tree behind its superblock, in ``hashes`` from ``offset`` on, of the data at the beginning of ``data``.

    :raise ValueError: when there is none, or it is of another kind, or has no room.
    """

    def __init__(self, data: Content, hashes: Content, offset: int) -> None:
        self.superblock = Superblock.from_bytes(hashes.read(offset, SUPERBLOCK_BYTES))
        self.offset = offset
        self._data, self._hashes = data, hashes
        block = self.superblock
        self._seeded = hashlib.new(block.algorithm, block.salt)
        self._in_a_block = block.hash_block_size // block.digest_bytes
        # Behind the superblock, at the next whole block.
        self.start = -(-(offset + SUPERBLOCK_BYTES) // block.hash_block_size) * block.hash_block_size
        self.levels = tuple(self._levels())
        end = self.levels[0].offset + self.levels[0].blocks * block.hash_block_size if self.levels else self.start
        if block.data_bytes > data.size:
            raise ValueError(f"a hash tree of {block.data_bytes} bytes of data, and there are {data.size}")
        if end > hashes.size:
            raise ValueError(f"a hash tree that ends at byte {end}, and there are {hashes.size}")

    def _levels(self) -> Iterator[Level]:
        """From the lowest to the top; the top one is the first on the device."""
        counts = []
        below = self.superblock.data_blocks
        while below > 1:
            below = -(-below // self._in_a_block)
            counts.append(below)
        offset = self.start + sum(counts) * self.superblock.hash_block_size
        for count in counts:
            offset -= count * self.superblock.hash_block_size
            yield Level(offset, count)

    def _digest(self, block: bytes) -> bytes:
        digest = self._seeded.copy()
        digest.update(block)
        return digest.digest()

    def root_hash(self) -> bytes:
        """The hash of the one block at the top: what vouches for all below it."""
        if not self.levels:
            return self._digest(self._block(self._data, 0, self.superblock.data_block_size))
        return self._digest(self._block(self._hashes, self.levels[-1].offset, self.superblock.hash_block_size))

    def check(self) -> None:
        """See that each block below the root is what the level above it says, from the top down to the data.

        :raise Difference: with the first one that is not.
        :raise ValueError: when an image is damaged.
        """
        size = self.superblock.hash_block_size
        for number in range(len(self.levels) - 2, -1, -1):
            self._compare(number, self._hashes, self.levels[number].offset, size, self.levels[number].blocks)
        if self.levels:
            block = self.superblock
            self._compare(-1, self._data, 0, block.data_block_size, block.data_blocks)

    def _compare(self, level: int, content: Content, offset: int, size: int, count: int) -> None:
        """Hash the ``count`` blocks of a level, and look for each digest in the level above."""
        above = self.levels[level + 1]
        at_once = max(1, _PIECE // (size * self._in_a_block)) * self._in_a_block
        for first in range(0, count, at_once):
            number = min(at_once, count - first)
            piece = content.read(offset + first * size, number * size)
            if len(piece) < number * size:
                raise ValueError("an image that ends too early")
            computed = b"".join(self._digest(piece[start : start + size]) for start in range(0, len(piece), size))
            blocks = -(-number // self._in_a_block)
            start = above.offset + first // self._in_a_block * self.superblock.hash_block_size
            said = self._hashes.read(start, blocks * self.superblock.hash_block_size)
            if said != computed.ljust(len(said), b"\0"):
                length = self.superblock.digest_bytes
                for index in range(number):
                    if said[index * length :][:length] != computed[index * length :][:length]:
                        raise Difference(level, first + index)
                # What is behind the last digest is zero.
                raise Difference(level + 1, start // self.superblock.hash_block_size)

    @staticmethod
    def _block(content: Content, offset: int, size: int) -> bytes:
        block = content.read(offset, size)
        if len(block) < size:
            raise ValueError("an image that ends too early")
        return block


def find_appended(content: Content) -> int:
    """Where the superblock of a tree is that was appended to its data, in bytes: the last one at the end of the data.

    :raise ValueError: when there is none at a multiple of :data:`ALIGNMENT`.
    """
    last = content.size // ALIGNMENT
    # A tree of blocks of 4096 bytes and of SHA-512 has a 63rd of the data's size; the superblock is in front of it.
    for number in range(last - 1, max(0, last * 31 // 32 - 2) - 1, -1):
        offset = number * ALIGNMENT
        if content.read(offset, len(MAGIC)) == MAGIC:
            superblock = Superblock.from_bytes(content.read(offset, SUPERBLOCK_BYTES))
            if superblock.data_bytes <= offset:
                return offset
    raise ValueError(f"no verity superblock is appended at a multiple of {ALIGNMENT} bytes")
