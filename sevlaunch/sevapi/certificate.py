"""SEV certificates: AMD 55766 appendix C, "SEV Certificate Format"; 2084 bytes, little-endian."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from enum import IntEnum

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from sevlaunch.sevapi.status import FirmwareError, Status

VERSION = 1
CURVE_P384 = 2
COORDINATE = 72
SIZE = 2084

# version, api_major, api_minor, two reserved bytes, pubkey_usage, pubkey_algo; then the key: curve, x, y, padding to
# 1028 bytes; then two signatures: usage, algo, 512 bytes.
_HEAD = struct.Struct("<IBBHII")
_KEY = struct.Struct(f"<I{COORDINATE}s{COORDINATE}s880x")
_SIGNATURE = struct.Struct("<II512s")
_SIGNED = _HEAD.size + _KEY.size


class Usage(IntEnum):
    """What a key is for."""

    ARK = 0x0
    ASK = 0x13
    INVALID = 0x1000
    OCA = 0x1001
    PEK = 0x1002
    PDH = 0x1003
    CEK = 0x1004


class Algorithm(IntEnum):
    """What a key is used with."""

    INVALID = 0x0
    RSA_SHA256 = 0x1
    ECDSA_SHA256 = 0x2
    ECDH_SHA256 = 0x3
    RSA_SHA384 = 0x101
    ECDSA_SHA384 = 0x102
    ECDH_SHA384 = 0x103


@dataclass(frozen=True)
class Signature:
    """A signature slot; empty slots have usage INVALID."""

    usage: int = Usage.INVALID
    algorithm: int = Algorithm.INVALID
    content: bytes = bytes(512)


@dataclass(frozen=True)
class Certificate:
    """A certificate; ``x`` and ``y`` are the public key's coordinates on P-384."""

    usage: int
    algorithm: int
    x: int
    y: int
    api_major: int = 1
    api_minor: int = 51
    signatures: tuple[Signature, Signature] = (Signature(), Signature())

    @classmethod
    def of_key(cls, key: ec.EllipticCurvePublicKey, usage: Usage, algorithm: Algorithm) -> Certificate:
        """An unsigned certificate for a P-384 key."""
        numbers = key.public_numbers()
        return cls(usage, algorithm, numbers.x, numbers.y)

    @classmethod
    def from_bytes(cls, content: bytes) -> Certificate:
        """The certificate in 2084 bytes.

        :raise FirmwareError: INVALID_LENGTH or INVALID_CERTIFICATE, as the secure processor answers.
        """
        if len(content) != SIZE:
            raise FirmwareError(Status.INVALID_LENGTH)
        version, api_major, api_minor, _, usage, algorithm = _HEAD.unpack_from(content)
        curve, x, y = _KEY.unpack_from(content, _HEAD.size)
        if version != VERSION or curve != CURVE_P384:
            raise FirmwareError(Status.INVALID_CERTIFICATE)
        first, second = (Signature(*_SIGNATURE.unpack_from(content, _SIGNED + n * _SIGNATURE.size)) for n in (0, 1))
        x, y = int.from_bytes(x, "little"), int.from_bytes(y, "little")
        return cls(usage, algorithm, x, y, api_major, api_minor, (first, second))

    @property
    def public_key(self) -> ec.EllipticCurvePublicKey:
        """The key.

        :raise FirmwareError: INVALID_CERTIFICATE when it is no point of the curve.
        """
        try:
            return ec.EllipticCurvePublicNumbers(self.x, self.y, ec.SECP384R1()).public_key()
        except ValueError as error:
            raise FirmwareError(Status.INVALID_CERTIFICATE) from error

    def to_bytes(self) -> bytes:
        """The 2084 bytes."""
        signatures = (_SIGNATURE.pack(one.usage, one.algorithm, one.content) for one in self.signatures)
        return self._signed_part() + b"".join(signatures)

    def signed_by(self, *signers: tuple[ec.EllipticCurvePrivateKey, Usage]) -> Certificate:
        """The certificate with signatures (ECDSA, SHA-256) of up to two keys."""
        made = [self._signature(key, usage) for key, usage in signers]
        first, second = [*made, Signature(), Signature()][:2]
        return replace(self, signatures=(first, second))

    def is_signed_by(self, signer: Certificate) -> bool:
        """Whether one of the signatures is that of ``signer`` and verifies."""
        return any(one.usage == signer.usage and self._verifies(one, signer) for one in self.signatures)

    def _signed_part(self) -> bytes:
        head = _HEAD.pack(VERSION, self.api_major, self.api_minor, 0, self.usage, self.algorithm)
        return head + _KEY.pack(CURVE_P384, _coordinate(self.x), _coordinate(self.y))

    def _signature(self, key: ec.EllipticCurvePrivateKey, usage: Usage) -> Signature:
        r, s = decode_dss_signature(key.sign(self._signed_part(), ec.ECDSA(hashes.SHA256())))
        content = (_coordinate(r) + _coordinate(s)).ljust(512, b"\0")
        return Signature(usage, Algorithm.ECDSA_SHA256, content)

    def _verifies(self, signature: Signature, signer: Certificate) -> bool:
        r = int.from_bytes(signature.content[:COORDINATE], "little")
        s = int.from_bytes(signature.content[COORDINATE : 2 * COORDINATE], "little")
        try:
            signer.public_key.verify(encode_dss_signature(r, s), self._signed_part(), ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            return False
        return True


def _coordinate(number: int) -> bytes:
    return number.to_bytes(COORDINATE, "little")
