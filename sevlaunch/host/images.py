"""What stands in the images of disks: their format by its magic, which no name can promise."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from sevlaunch.host.facts import ImageFacts

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
# QEMU's docs/interop/qcow2.txt: crypt_method in the header.
_QCOW2_CRYPT_METHOD, _QCOW2_LUKS = 32, b"\0\0\0\2"
# docs/interop/qcow2.txt: version at 4, backing_file_offset at 8, size at 24; version 3 has incompatible_features at 72.
_QCOW2_HEADER = struct.Struct(">4xIQIIQ40xQ")
_QCOW2_WITHOUT_FEATURES = 2
_QCOW2_EXTERNAL_DATA = 1 << 2
# A Virtual PC image of fixed size has its only mark at the end; raw in front of it is what a guest sees.
_FOOTER_BYTES = 512


def image_format(head: bytes, tail: bytes = b"") -> str:
    """The format, as QEMU's block driver is called, of an image that begins and ends so; ``raw`` for anything else."""
    for name, offset, magic in _MAGIC:
        if head[offset:].startswith(magic):
            return name
    return "vpc" if tail.startswith(b"conectix") else "raw"


def _has_luks(found: str, head: bytes) -> bool:
    if found == "qcow2":
        return head[_QCOW2_CRYPT_METHOD : _QCOW2_CRYPT_METHOD + 4] == _QCOW2_LUKS
    return found == "raw" and head.startswith(_LUKS)


def _qcow2_facts(head: bytes) -> tuple[int, str]:
    """How large the disk is that a qcow2 image has, and what other file the image leans on."""
    version, backing, _, _, size, features = _QCOW2_HEADER.unpack_from(head.ljust(_QCOW2_HEADER.size, b"\0"))
    if version > _QCOW2_WITHOUT_FEATURES and features & _QCOW2_EXTERNAL_DATA:
        return size, "a file that its data is in (data-file)"
    return size, "another image below it (backing file)" if backing else ""


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
        found = image_format(head, tail)
        virtual_size, leans_on = _qcow2_facts(head) if found == "qcow2" else (size if found == "raw" else None, "")
        return ImageFacts(
            format=found,
            block_device=block_device,
            size=size,
            luks=_has_luks(found, head),
            virtual_size=virtual_size,
            leans_on=leans_on,
        )
    return None


def images_at(paths: Iterable[str]) -> dict[str, ImageFacts]:
    """The facts of each image that can be looked at, by its path."""
    return {path: facts for path in paths if (facts := image_facts(path))}
