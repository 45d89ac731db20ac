"""What stands in the images of disks: their format by its magic, which no name can promise."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from msgspec.structs import replace

from sevlaunch.host.facts import ImageFacts
from sevlaunch.host.folders import image_file
from sevlaunch.qcow2 import Header

# Offset and bytes by which QEMU itself knows each format: the *_probe() functions in its block/ folder.
_MAGIC = (
    ("qcow2", 0, b"QFI\xfb"),
    ("vmdk", 0, b"KDMV"),
    ("vmdk", 0, b"COWD"),
    ("vmdk", 0, b"# Disk DescriptorFile"),
    ("vhdx", 0, b"vhdxfile"),
    ("vdi", 0x40, b"\x7f\x10\xda\xbe"),
    ("vpc", 0, b"conectix"),
)
_HEAD_BYTES = 512
# LUKS on-disk format specification, section 2: the first bytes of both versions.
_LUKS = b"LUKS\xba\xbe"
# A Virtual PC image of fixed size has its only mark at the end; raw in front of it is what a guest sees.
_FOOTER_BYTES = 512


def image_format(head: bytes, tail: bytes = b"") -> str:
    """The format, as QEMU's block driver is called, of an image that begins and ends so; ``raw`` for anything else."""
    for name, offset, magic in _MAGIC:
        if head[offset:].startswith(magic):
            return name
    return "vpc" if tail.startswith(b"conectix") else "raw"


def image_facts(path: str) -> ImageFacts | None:
    """What the file or block device at ``path`` is; None where there is none, or it can't be looked at.

    Opening it does not wait, whatever it is, and reads its first and last 512 bytes.
    """
    with suppress(OSError, ValueError):
        status = Path(path).stat()
        block_device = stat.S_ISBLK(status.st_mode)
        if not (block_device or stat.S_ISREG(status.st_mode)):
            return None
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        try:
            size = os.lseek(fd, 0, os.SEEK_END)
            head = os.pread(fd, _HEAD_BYTES, 0)
            tail = os.pread(fd, _FOOTER_BYTES, max(0, size - _FOOTER_BYTES))
        finally:
            os.close(fd)
        found = ImageFacts(format=image_format(head, tail), block_device=block_device, size=size)
        if found.format == "qcow2":
            header = Header.read(head)
            return replace(
                found,
                luks=header.has_luks,
                virtual_size=header.virtual_size,
                leans_on=header.leans_on,
                damage=header.damage(size),
            )
        if found.format == "raw":
            return replace(found, luks=head.startswith(_LUKS), virtual_size=size)
        return found
    return None


def images_at(sources: Iterable[str]) -> dict[str, ImageFacts]:
    """The facts of each image that can be looked at, by its path, or by its entry in the cache of fetched images."""
    return {source: facts for source in sources if (facts := image_facts(str(file_of(source))))}


def file_of(source: str) -> Path:
    """The file of an image: by its path, or by its entry in the cache of fetched ones."""
    return Path(source) if source.startswith("/") else image_file(source)
