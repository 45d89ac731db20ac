"""Reading files of ext2, ext3 and ext4: the kernel's Documentation/filesystems/ext4, fs/ext4/ext4.h."""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterator
from typing import NamedTuple
from uuid import UUID

from sevlaunch.contents.volume import Volume, exactly

# First data block, log of the block's size, inodes of a group, magic, revision, an inode's bytes, compatible,
# incompatible and read-only compatible features, UUID, label, bytes of a group's descriptor.
_SUPER = struct.Struct("<20xII12xI12xH18xI8xH2xIII16s16s118xH")
_SUPER_AT, _MAGIC = 1024, 0xEF53
# Where a group's table of inodes is: lower and, with 64 bits, upper half.
_TABLE_LOW, _TABLE_HIGH = struct.Struct("<8xI"), struct.Struct("<40xI")
# Mode, lower half of the size, flags, what says where the content is, upper half of the size.
_INODE = struct.Struct("<H2xI24xI4x60s8xI")
_EXTENTS_HEAD = struct.Struct("<HHHHI")
_INDEX = struct.Struct("<IIHH")
_EXTENT = struct.Struct("<IHHI")
_EXTENTS_MAGIC, _DEEPEST = 0xF30A, 5
# A length above says that the blocks were never written, and are zeros.
_LONGEST_EXTENT = 1 << 15
# Inode, bytes of the entry, of its name, and what it is.
_NAME = struct.Struct("<IHBB")

_IS_64_BIT, _RECOVER = 0x80, 0x4
# Features that change nothing for who reads files: types in folders, a journal to replay, extents, 64 bits, protection
# against two mounts, groups together, values in inodes, a seed, large folders, content in inodes, encryption (of some
# files), names whatever their case.
_FINE = 0x2 | _RECOVER | 0x40 | _IS_64_BIT | 0x100 | 0x200 | 0x400 | 0x2000 | 0x4000 | 0x8000 | 0x10000 | 0x20000
_ENCRYPTED, _HAS_EXTENTS, _IN_INODE = 0x800, 0x80000, 0x1000_0000
_ROOT, _OLD_INODE, _OLD_DESCRIPTOR = 2, 128, 32
_MOST_LINKS = 40
_MOST_FOLDER_BYTES = 16 << 20
_LONGEST_LINK = 4096
_DIRECT = 12
_PARENT_BYTES = 4


class _Inode(NamedTuple):
    mode: int
    size: int
    flags: int
    place: bytes


class Ext4:
    """An ext2, ext3 or ext4 file system. ``caution``: what makes it doubtful, or empty.

    :raise ValueError: when ``volume`` has none, or one with features that are not known here.
    """

    kind = "ext4"

    def __init__(self, volume: Volume) -> None:
        fields = _SUPER.unpack(exactly(volume, _SUPER_AT, _SUPER.size))
        first, log_size, per_group, magic, revision, inode, _, incompatible, _, uuid, label, descriptor = fields
        if magic != _MAGIC or log_size > 6 or not per_group:
            raise ValueError("no ext4 file system")
        if incompatible & ~_FINE:
            raise ValueError(f"an ext4 file system with features that are not known here ({incompatible & ~_FINE:#x})")
        self._volume = volume
        self._block = 1024 << log_size
        self._per_group = per_group
        self._inode_bytes = inode if revision else _OLD_INODE
        self._is_64_bit = bool(incompatible & _IS_64_BIT)
        self._descriptor = descriptor if self._is_64_bit else _OLD_DESCRIPTOR
        if self._inode_bytes < _OLD_INODE or self._descriptor < (64 if self._is_64_bit else _OLD_DESCRIPTOR):
            raise ValueError("an ext4 file system with sizes that can't be")
        self._groups_at = (first + 1) * self._block
        self.uuid = str(UUID(bytes=uuid))
        self.label = label.split(b"\0")[0].decode(errors="replace")
        unclean = bool(incompatible & _RECOVER)
        self.caution = "it was not unmounted: what its journal still holds is not seen" if unclean else ""

    def names(self, folder: str) -> list[str]:
        """The names in a folder; [] where there is none."""
        found = self._find(folder)
        return [name for name, _ in self._folder(found)] if found and stat.S_ISDIR(found.mode) else []

    def is_file(self, path: str) -> bool:
        """Whether there is such a file, through symbolic links."""
        found = self._find(path)
        return found is not None and stat.S_ISREG(found.mode)

    def read(self, path: str, limit: int) -> bytes | None:
        """The content of a file, through symbolic links; None where there is none.

        :raise ValueError: when it has more than ``limit`` bytes, or can't be read.
        """
        found = self._find(path)
        if found is None or not stat.S_ISREG(found.mode):
            return None
        if found.size > limit:
            raise ValueError(f"{path} has {found.size} bytes, and at most {limit} are read")
        return self._content(found)

    def _find(self, path: str) -> _Inode | None:
        """The inode of a path from the root on, with all links followed."""
        left = [part for part in reversed(path.split("/")) if part]
        trail = [self._inode(_ROOT)]
        links = 0
        while left:
            part = left.pop()
            if part == ".":
                continue
            if part == "..":
                trail = trail[:1] if len(trail) == 1 else trail[:-1]
                continue
            if not stat.S_ISDIR(trail[-1].mode):
                return None
            wanted = part.encode()
            number = next((inode for name, inode in self._entries(trail[-1]) if name == wanted), 0)
            if not number:
                return None
            found = self._inode(number)
            if not stat.S_ISLNK(found.mode):
                trail.append(found)
                continue
            links += 1
            if links > _MOST_LINKS or found.size > _LONGEST_LINK:
                raise ValueError(f"{path} leads through too many links")
            target = self._link(found)
            if target.startswith("/"):
                trail = trail[:1]
            left += [one for one in reversed(target.split("/")) if one]
        return trail[-1]

    def _link(self, inode: _Inode) -> str:
        short = inode.size < len(inode.place) and not inode.flags & _HAS_EXTENTS
        content = inode.place[: inode.size] if short else self._content(inode)
        return content.decode(errors="replace")

    def _folder(self, inode: _Inode) -> Iterator[tuple[str, int]]:
        for name, number in self._entries(inode):
            if name not in (b".", b".."):
                yield name.decode(errors="replace"), number

    def _entries(self, inode: _Inode) -> Iterator[tuple[bytes, int]]:
        if inode.size > _MOST_FOLDER_BYTES:
            raise ValueError("a folder is too large")
        content = self._content(inode)
        if inode.flags & _IN_INODE:
            # The inode of the folder above stands in front.
            content = content[_PARENT_BYTES:]
        for block in range(0, len(content), self._block):
            at, end = block, min(len(content), block + self._block)
            # The blocks of a folder's index look like entries without an inode.
            while at + _NAME.size <= end:
                number, length, name, _ = _NAME.unpack_from(content, at)
                if length < _NAME.size + name:
                    break
                if number:
                    yield content[at + _NAME.size : at + _NAME.size + name], number
                at += length

    def _inode(self, number: int) -> _Inode:
        group, index = divmod(number - 1, self._per_group)
        at = self._groups_at + group * self._descriptor
        descriptor = exactly(self._volume, at, self._descriptor)
        (table,) = _TABLE_LOW.unpack_from(descriptor)
        if self._is_64_bit:
            table |= _TABLE_HIGH.unpack_from(descriptor)[0] << 32
        content = exactly(self._volume, table * self._block + index * self._inode_bytes, _INODE.size)
        mode, low, flags, place, high = _INODE.unpack(content)
        # The upper half of a folder's size is something else in older ones.
        return _Inode(mode, low if stat.S_ISDIR(mode) else low | high << 32, flags, place)

    def _content(self, inode: _Inode) -> bytes:
        if inode.flags & _ENCRYPTED:
            raise ValueError("a file or folder is encrypted")
        if inode.flags & _IN_INODE:
            if inode.size > len(inode.place):
                raise ValueError("a file has its content in its inode, which is not read here")
            return inode.place[: inode.size]
        content = bytearray(inode.size)
        blocks = -(-inode.size // self._block)
        runs = self._extents(inode.place, blocks) if inode.flags & _HAS_EXTENTS else self._mapped(inode.place, blocks)
        for first, at, count in runs:
            start = first * self._block
            length = min(count * self._block, inode.size - start)
            if length > 0:
                content[start : start + length] = exactly(self._volume, at * self._block, length)
        return bytes(content)

    def _extents(self, root: bytes, blocks: int) -> Iterator[tuple[int, int, int]]:
        """(first block of the file, block of the volume, how many) of what is written."""
        # Each node holds something of a file that is as it should be.
        left, todo = blocks + _DEEPEST, [(root, _DEEPEST + 1)]
        while todo:
            node, above = todo.pop()
            magic, count, _, depth, _ = _EXTENTS_HEAD.unpack_from(node)
            left -= 1
            if magic != _EXTENTS_MAGIC or depth >= above or left < 0 or (count + 1) * _EXTENT.size > len(node):
                raise ValueError("a file's extents are damaged")
            for index in range(1, count + 1):
                if depth:
                    _, low, high, _ = _INDEX.unpack_from(node, index * _INDEX.size)
                    todo.append((exactly(self._volume, (low | high << 32) * self._block, self._block), depth))
                    continue
                first, length, high, low = _EXTENT.unpack_from(node, index * _EXTENT.size)
                if length <= _LONGEST_EXTENT:
                    yield first, low | high << 32, length

    def _mapped(self, place: bytes, blocks: int) -> Iterator[tuple[int, int, int]]:
        """As :meth:`_extents`, of a file of ext2 and ext3, whose blocks stand in lists, and lists of lists."""
        numbers = struct.unpack("<15I", place)
        for index, number in enumerate(numbers[:_DIRECT]):
            if number and index < blocks:
                yield index, number, 1
        first = _DIRECT
        for depth, number in enumerate(numbers[_DIRECT:], 1):
            yield from self._listed(number, depth, first, blocks)
            first += (self._block // 4) ** depth

    def _listed(self, number: int, depth: int, first: int, blocks: int) -> Iterator[tuple[int, int, int]]:
        if not number or first >= blocks:
            return
        if depth == 0:
            yield first, number, 1
            return
        entries = self._block // 4
        listed = struct.unpack(f"<{entries}I", exactly(self._volume, number * self._block, self._block))
        for index, one in enumerate(listed):
            yield from self._listed(one, depth - 1, first + index * entries ** (depth - 1), blocks)
