"""What an OVMF image has for encrypted guests, read from the table of GUIDs at its end."""

from __future__ import annotations

import struct
from pathlib import Path
from uuid import UUID

from sevlaunch.host.facts import FirmwareImage
from sevlaunch.opening import open_regular
from sevlaunch.sevapi.ovmf import HASHES_TABLE, SECRET_AREA, es_reset_eip, table_of

# edk2's OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm and X64/OvmfSevMetadata.asm.
_SEV_METADATA = UUID("dc886566-984a-4798-a75e-5585a7bf67cc")
_METADATA_SIGNATURE = b"ASEV"
# Signature, length, version, number of descriptors.
_METADATA_HEADER = struct.Struct("<4sIII")
# The entry holds the distance of the metadata from the end of the image.
_DISTANCE = struct.Struct("<I")

# The entry holds base and size; a build without the area has the entry with a size of zero.
_AREA = struct.Struct("<II")

# The table ends 32 bytes below the end of the image, and has a 16-bit length.
_TAIL = 1 << 17


def firmware_image(file: Path, path: str) -> FirmwareImage:
    """What the image ``file`` has; ``path`` is its name on the machine it belongs to."""
    try:
        with open_regular(file) as stream:
            size = stream.seek(0, 2)
            stream.seek(max(0, size - _TAIL))
            tail = stream.read()
    except OSError as error:
        return FirmwareImage(path=path, error=error.strerror or str(error))
    try:
        table = table_of(tail)
    except ValueError as error:
        return FirmwareImage(path=path, error=str(error))
    return FirmwareImage(
        path=path,
        es_reset_vector=es_reset_eip(tail) or None,
        hashes_table=_has_area(table.get(HASHES_TABLE, b"")),
        secret_area=_has_area(table.get(SECRET_AREA, b"")),
        snp_metadata=_has_metadata(tail, table.get(_SEV_METADATA, b"")),
    )


def _has_area(entry: bytes) -> bool:
    return len(entry) >= _AREA.size and bool(_AREA.unpack_from(entry)[1])


def _has_metadata(tail: bytes, entry: bytes) -> bool:
    if len(entry) < _DISTANCE.size:
        return False
    start = len(tail) - int(_DISTANCE.unpack_from(entry)[0])
    if not 0 <= start <= len(tail) - _METADATA_HEADER.size:
        return False
    signature, _, _, count = _METADATA_HEADER.unpack_from(tail, start)
    return bool(signature == _METADATA_SIGNATURE and count)
