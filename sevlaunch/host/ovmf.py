"""What an OVMF image has for encrypted guests, read from the table of GUIDs at its end."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from sevlaunch.host.firmware_facts import FirmwareDescriptor, FirmwareImage
from sevlaunch.host.system import System
from sevlaunch.opening import open_regular
from sevlaunch.qcow2 import MAGIC, MAX_FLASH_BYTES, Qcow2
from sevlaunch.sevapi.ovmf import HASHES_TABLE, SECRET_AREA, SEV_METADATA, es_reset_eip, table_of

_METADATA_SIGNATURE = b"ASEV"
# Signature, length, version, number of descriptors; each descriptor has an address, a length and a kind.
_METADATA_HEADER = struct.Struct("<4sIII")
_DESCRIPTOR = struct.Struct("<III")
# The entry holds the distance of the metadata from the end of the image.
_DISTANCE = struct.Struct("<I")

# The entry holds base and size; a build without the area has the entry with a size of zero.
_AREA = struct.Struct("<II")

# The igvm crate's igvm_defs, IGVM_MAGIC_VALUE.
_IGVM = b"IGVM"

# The table ends 32 bytes below the end of the image, and has a 16-bit length.
_TAIL = 1 << 17


def firmware_image(file: Path, path: str) -> FirmwareImage:
    """What the image ``file`` has, raw, qcow2 or an IGVM file; ``path`` is its name on the machine it belongs to."""
    image_format = "raw"
    try:
        with open_regular(file) as stream:
            magic = stream.read(len(MAGIC))
            if magic == _IGVM:
                return FirmwareImage(path=path, format="igvm")
            if magic == MAGIC:
                image_format = "qcow2"
            tail, size = _tail_of(stream, image_format)
        table = table_of(tail)
        eip = es_reset_eip(tail)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return FirmwareImage(path=path, format=image_format, error=reason)
    return FirmwareImage(
        path=path,
        format=image_format,
        size=size,
        es_reset_vector=eip or None,
        hashes_table=_has_area(table.get(HASHES_TABLE, b"")),
        secret_area=_has_area(table.get(SECRET_AREA, b"")),
        snp_pages=_page_kinds(tail, table.get(SEV_METADATA, b"")),
    )


def firmware_images(
    system: System, descriptors: Iterable[FirmwareDescriptor], paths: Iterable[str]
) -> list[FirmwareImage]:
    """What the images and variable stores that ``descriptors`` name are, and those at ``paths`` that are there."""
    described = [path for one in descriptors for path in (one.executable, one.nvram_template) if path]
    there = [path for path in paths if system.path(path).exists()]
    return [firmware_image(system.path(path), path) for path in dict.fromkeys((*described, *there))]


def _tail_of(stream: BinaryIO, image_format: str) -> tuple[bytes, int]:
    """The end of what the guest sees, and the size of all."""
    if image_format == "qcow2":
        image = Qcow2(stream)
        if image.size > MAX_FLASH_BYTES:
            raise ValueError(f"a qcow2 image of {image.size} bytes: firmware has at most {MAX_FLASH_BYTES}")
        return image.read(max(0, image.size - _TAIL), _TAIL), image.size
    size = stream.seek(0, 2)
    stream.seek(max(0, size - _TAIL))
    return stream.read(), size


def _has_area(entry: bytes) -> bool:
    return len(entry) >= _AREA.size and bool(_AREA.unpack_from(entry)[1])


def _page_kinds(tail: bytes, entry: bytes) -> list[int]:
    """The kinds of pages in the metadata, those that nobody knows yet included."""
    if len(entry) < _DISTANCE.size:
        return []
    start = len(tail) - int(_DISTANCE.unpack_from(entry)[0])
    if not 0 <= start <= len(tail) - _METADATA_HEADER.size:
        return []
    signature, _, _, count = _METADATA_HEADER.unpack_from(tail, start)
    end = start + _METADATA_HEADER.size + count * _DESCRIPTOR.size
    if signature != _METADATA_SIGNATURE or end > len(tail):
        return []
    kinds = (kind for _, _, kind in _DESCRIPTOR.iter_unpack(tail[start + _METADATA_HEADER.size : end]))
    return list(dict.fromkeys(kinds))
