"""The launch measurement: AMD 55766, LAUNCH_MEASURE."""

from __future__ import annotations

import hashlib
import hmac
import struct

MEASURE_BYTES = 32
MNONCE_BYTES = 16

# Context byte, API major, API minor, build, policy, launch digest, nonce.
_MEASURED = struct.Struct("<BBBBI32s16s")
_CONTEXT = 0x04
_BLOCK = hashlib.sha256().block_size


def measure(
    tik: bytes, *, api_major: int, api_minor: int, build_id: int, policy: int, digest: bytes, mnonce: bytes
) -> bytes:
    """MEASURE, 32 bytes: what only the secure processor and the holder of the TIK can compute.

    :param digest: launch digest, SHA-256 of all measured memory.
    :param mnonce: 16 bytes that the processor chose.
    """
    message = _MEASURED.pack(_CONTEXT, api_major, api_minor, build_id, policy, digest, mnonce)
    return hmac.digest(tik, message, "sha256")


class KeyedMeasure:
    """MEASURE under one TIK, many times over: HMAC (RFC 2104) whose key is hashed once."""

    def __init__(self, tik: bytes) -> None:
        padded = tik.ljust(_BLOCK, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in padded))

    def of(self, api_major: int, api_minor: int, build_id: int, policy: int, digest: bytes, mnonce: bytes) -> bytes:
        """As :func:`measure`."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(_MEASURED.pack(_CONTEXT, api_major, api_minor, build_id, policy, digest, mnonce))
        outer.update(inner.digest())
        return outer.digest()
