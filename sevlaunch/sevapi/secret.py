"""Secrets for a guest in launch: AMD 55766, LAUNCH_SECRET."""

from __future__ import annotations

import hmac
import struct

from sevlaunch.sevapi.session import TransportKeys, aes_128_ctr
from sevlaunch.sevapi.status import FirmwareError, Status

HEADER_BYTES = 52

# FLAGS, IV, MAC.
_HEADER = struct.Struct("<I16s32s")
_FLAG_COMPRESSED = 1


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
