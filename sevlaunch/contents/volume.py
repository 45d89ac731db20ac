"""Bytes that can be read anywhere: an image as its guest sees it, a partition, a file."""

from __future__ import annotations

from typing import BinaryIO, Protocol

from sevlaunch.qcow2 import MAGIC, Qcow2


class Volume(Protocol):
    """``size``: in bytes."""

    @property
    def size(self) -> int:
        """How many bytes there are."""
        raise NotImplementedError

    def read(self, offset: int, length: int) -> bytes:
        """The bytes from ``offset`` on; fewer at the end.

        :raise ValueError: when what holds them is damaged.
        """
        raise NotImplementedError


class Raw:
    """A file as it is."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = file.seek(0, 2)

    def read(self, offset: int, length: int) -> bytes:
        """As :meth:`Volume.read`."""
        if offset >= self.size:
            return b""
        self._file.seek(offset)
        return self._file.read(min(length, self.size - offset))


class Whole:
    """Bytes that are in memory."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.size = len(content)

    def read(self, offset: int, length: int) -> bytes:
        """As :meth:`Volume.read`."""
        return self._content[offset : offset + length]


class Part:
    """``size`` bytes of another volume, from ``start`` on."""

    def __init__(self, volume: Volume, start: int, size: int) -> None:
        self._volume = volume
        self._start = start
        self.size = max(0, min(size, volume.size - start))

    def read(self, offset: int, length: int) -> bytes:
        """As :meth:`Volume.read`."""
        return self._volume.read(self._start + offset, max(0, min(length, self.size - offset)))


def open_volume(file: BinaryIO) -> Volume:
    """The content of the disk whose image ``file`` is: qcow2, or else raw.

    :raise ValueError: when it is damaged, or needs more than the file itself.
    """
    file.seek(0)
    return Qcow2(file) if file.read(len(MAGIC)) == MAGIC else Raw(file)


def exactly(volume: Volume, offset: int, length: int) -> bytes:
    """As :meth:`Volume.read`, all of them.

    :raise ValueError: when there are fewer, too.
    """
    content = volume.read(offset, length)
    if len(content) < length:
        raise ValueError("it ends too early")
    return content
