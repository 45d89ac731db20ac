"""Secrets for a guest in launch: AMD 55766, LAUNCH_SECRET."""

from __future__ import annotations

import hmac
import struct
from collections.abc import Sequence
from uuid import UUID

from sevlaunch.sevapi.session import TransportKeys, aes_128_ctr
from sevlaunch.sevapi.status import FirmwareError, Status

HEADER_BYTES = 52
# AMD 55766, LAUNCH_SECRET: what one command takes.
MAX_PAYLOAD_BYTES = 16384

# edk2's OvmfPkg/AmdSev/SecretPei and the kernel's drivers/virt/coco/efi_secret.
TABLE = UUID("1e74f542-71dd-4d66-963e-ef4287ff173b")
LUKS_PASSPHRASE = UUID("736869e5-84f0-4973-92ec-06879ce3da0b")

# FLAGS, IV, MAC.
_HEADER = struct.Struct("<I16s32s")
_FLAG_COMPRESSED = 1
# Head of the table and of each entry: GUID, length with the head.
_ENTRY = struct.Struct("<16sI")
_ALIGNMENT = 16


def secret_table(secrets: Sequence[tuple[UUID, bytes]]) -> bytes:
    """The table that the firmware hands on to the guest's system, padded with zeros to a multiple of 16 bytes.

    The table's own length does not count the padding.
    """
    entries = b"".join(_entry(guid, content) for guid, content in secrets)
    table = _entry(TABLE, entries)
    return table + bytes(-len(table) % _ALIGNMENT)


def _entry(guid: UUID, content: bytes) -> bytes:
    return _ENTRY.pack(guid.bytes_le, _ENTRY.size + len(content)) + content


def secret_mac(tik: bytes, flags: int, iv: bytes, guest_length: int, ciphertext: bytes, measure: bytes) -> bytes:
    """The MAC of a packet header. ``measure`` binds the secret to one launch."""
    lengths = struct.pack("<II", guest_length, len(ciphertext))
    message = b"\x01" + struct.pack("<I", flags) + iv + lengths + ciphertext + measure
    return hmac.digest(tik, message, "sha256")


def unwrap_secret(keys: TransportKeys, header: bytes, ciphertext: bytes, guest_length: int, measure: bytes) -> bytes:
    """The plaintext that the secure processor writes into the guest.

    :raise FirmwareError: INVALID_LENGTH, BAD_MEASUREMENT when the MAC does not match, UNSUPPORTED when compressed.
    """
    if len(header) != HEADER_BYTES or guest_length != len(ciphertext):
        raise FirmwareError(Status.INVALID_LENGTH)
    flags, iv, mac = _HEADER.unpack(header)
    if not hmac.compare_digest(secret_mac(keys.tik, flags, iv, guest_length, ciphertext, measure), mac):
        raise FirmwareError(Status.BAD_MEASUREMENT)
    if flags & _FLAG_COMPRESSED:
        raise FirmwareError(Status.UNSUPPORTED)
    return aes_128_ctr(keys.tek, iv, ciphertext)


def wrap_secret(keys: TransportKeys, plaintext: bytes, measure: bytes, iv: bytes) -> tuple[bytes, bytes]:
    """Packet header (52 bytes) and ciphertext for one launch.

    :param measure: MEASURE of the launch, 32 bytes.
    :param iv: 16 random bytes, never used before with this TEK.
    """
    ciphertext = aes_128_ctr(keys.tek, iv, plaintext)
    mac = secret_mac(keys.tik, 0, iv, len(ciphertext), ciphertext, measure)
    return _HEADER.pack(0, iv, mac), ciphertext
