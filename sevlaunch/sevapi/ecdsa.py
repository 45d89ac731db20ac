"""ECDSA on P-384 in AMD's layout, numbers little-endian: AMD 55766 appendix C, AMD 56860 chapter 10.

A key has 1028 bytes, a signature 512; both are padded with zeros.

cryptography takes as long to import as QEMU to start. It is imported where a key is used: a rehearsed launch without a
session uses none.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

Digest = Literal["sha256", "sha384"]

CURVE_P384 = 2
COORDINATE = 72

# Curve, x, y.
_KEY = struct.Struct(f"<I{COORDINATE}s{COORDINATE}s880x")
# r, s.
_SIGNATURE = struct.Struct(f"<{COORDINATE}s{COORDINATE}s368x")
KEY_BYTES = _KEY.size
SIGNATURE_BYTES = _SIGNATURE.size
# Of these r and s.
USED_BYTES = 2 * COORDINATE


def key_to_bytes(key: ec.EllipticCurvePublicKey) -> bytes:
    """A public key on P-384 in 1028 bytes."""
    numbers = key.public_numbers()
    return point_bytes(numbers.x, numbers.y)


def point_bytes(x: int, y: int) -> bytes:
    """A public key on P-384, by its coordinates, in 1028 bytes."""
    return _KEY.pack(CURVE_P384, _to_bytes(x), _to_bytes(y))


def signature_bytes(r: int, s: int) -> bytes:
    """A signature in 512 bytes."""
    return _SIGNATURE.pack(_to_bytes(r), _to_bytes(s))


def key_from_bytes(content: bytes) -> ec.EllipticCurvePublicKey:
    """The public key in 1028 bytes.

    :raise ValueError: when it is on another curve, or no point of it.
    """
    curve, x, y = _KEY.unpack(content)
    if curve != CURVE_P384:
        raise ValueError(f"a key is on curve {curve}, wanted {CURVE_P384} (P-384)")
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.EllipticCurvePublicNumbers(_number(x), _number(y), ec.SECP384R1()).public_key()


def sign(key: ec.EllipticCurvePrivateKey, message: bytes, digest: Digest) -> bytes:
    """A signature in 512 bytes: always the same for a key and a message (RFC 6979), where OpenSSL can do that."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

    try:
        scheme = _scheme(digest, deterministic=True)
    except UnsupportedAlgorithm:
        # Since OpenSSL 3.2.
        scheme = _scheme(digest)
    return signature_bytes(*decode_dss_signature(key.sign(message, scheme)))


def verifies(key: ec.EllipticCurvePublicKey, signature: bytes, message: bytes, digest: Digest) -> bool:
    """Whether ``signature``, 512 bytes, is that of ``key`` under ``message``."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

    r, s = _SIGNATURE.unpack(signature)
    try:
        key.verify(encode_dss_signature(_number(r), _number(s)), message, _scheme(digest))
    except InvalidSignature:
        return False
    return signature == _SIGNATURE.pack(r, s)


def _scheme(digest: Digest, *, deterministic: bool = False) -> ec.ECDSA:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    algorithm = hashes.SHA256() if digest == "sha256" else hashes.SHA384()
    return ec.ECDSA(algorithm, deterministic_signing=deterministic)


def _to_bytes(number: int) -> bytes:
    return number.to_bytes(COORDINATE, "little")


def _number(content: bytes) -> int:
    return int.from_bytes(content, "little")
