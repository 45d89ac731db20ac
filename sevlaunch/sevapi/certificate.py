"""SEV certificates: AMD 55766 appendix C, "SEV Certificate Format"; 2084 bytes, little-endian."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TYPE_CHECKING

from sevlaunch.sevapi import ca_certificate, ecdsa
from sevlaunch.sevapi.ca_certificate import CaCertificate
from sevlaunch.sevapi.status import FirmwareError, Status

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

VERSION = 1
SIZE = 2084

# version, api_major, api_minor, two reserved bytes, pubkey_usage, pubkey_algo; then the key; then two signatures:
# usage, algo, 512 bytes.
_HEAD = struct.Struct("<IBB2xII")
_SIGNATURE = struct.Struct(f"<II{ecdsa.SIGNATURE_BYTES}s")
_SIGNED = _HEAD.size + ecdsa.KEY_BYTES


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


_DIGESTS: dict[int, ecdsa.Digest] = {Algorithm.ECDSA_SHA256: "sha256", Algorithm.ECDSA_SHA384: "sha384"}
# AMD's own keys, by their size in bits.
_RSA_ALGORITHMS = {2048: Algorithm.RSA_SHA256, 4096: Algorithm.RSA_SHA384}


@dataclass(frozen=True)
class Signature:
    """A signature slot; empty slots have usage INVALID."""

    usage: int = Usage.INVALID
    algorithm: int = Algorithm.INVALID
    content: bytes = bytes(512)


@dataclass(frozen=True)
class Certificate:
    """A certificate; ``key`` has 1028 bytes in AMD's layout (:mod:`sevlaunch.sevapi.ecdsa`)."""

    usage: int
    algorithm: int
    key: bytes
    api_major: int = 1
    api_minor: int = 51
    signatures: tuple[Signature, Signature] = (Signature(), Signature())

    @classmethod
    def of_key(cls, key: ec.EllipticCurvePublicKey, usage: Usage, algorithm: Algorithm) -> Certificate:
        """An unsigned certificate for a P-384 key."""
        return cls(usage, algorithm, ecdsa.key_to_bytes(key))

    @classmethod
    def from_bytes(cls, content: bytes) -> Certificate:
        """The certificate in 2084 bytes.

        :raise FirmwareError: INVALID_LENGTH or INVALID_CERTIFICATE, as the secure processor answers.
        """
        if len(content) != SIZE:
            raise FirmwareError(Status.INVALID_LENGTH)
        _, api_major, api_minor, usage, algorithm = _HEAD.unpack_from(content)
        signatures = (Signature(*_SIGNATURE.unpack_from(content, _SIGNED + n * _SIGNATURE.size)) for n in (0, 1))
        key = content[_HEAD.size : _SIGNED]
        certificate = cls(usage, algorithm, key, api_major, api_minor, (next(signatures), next(signatures)))
        # Its signatures are checked over what this makes of it: nothing may be lost, and the version is the known one.
        if certificate.to_bytes() != content:
            raise FirmwareError(Status.INVALID_CERTIFICATE)
        return certificate

    @property
    def public_key(self) -> ec.EllipticCurvePublicKey:
        """The key.

        :raise FirmwareError: INVALID_CERTIFICATE when it is no point of P-384.
        """
        try:
            return ecdsa.key_from_bytes(self.key)
        except ValueError as error:
            raise FirmwareError(Status.INVALID_CERTIFICATE) from error

    def to_bytes(self) -> bytes:
        """The 2084 bytes."""
        signatures = (_SIGNATURE.pack(one.usage, one.algorithm, one.content) for one in self.signatures)
        return self._signed_part() + b"".join(signatures)

    def signed_by(self, *signers: tuple[ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, Usage]) -> Certificate:
        """The certificate with signatures of up to two keys."""
        made = [self._signature(key, usage) for key, usage in signers]
        first, second = [*made, Signature(), Signature()][:2]
        return replace(self, signatures=(first, second))

    def is_signed_by(self, signer: Certificate | CaCertificate) -> bool:
        """Whether one of the signatures is that of ``signer`` and verifies.

        :raise FirmwareError: INVALID_CERTIFICATE when the signer's key is none.
        """
        return any(one.usage == signer.usage and self._verifies(one, signer) for one in self.signatures)

    def _signed_part(self) -> bytes:
        return _HEAD.pack(VERSION, self.api_major, self.api_minor, self.usage, self.algorithm) + self.key

    def _signature(self, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, usage: Usage) -> Signature:
        from cryptography.hazmat.primitives.asymmetric import ec

        if isinstance(key, ec.EllipticCurvePrivateKey):
            return Signature(usage, Algorithm.ECDSA_SHA256, ecdsa.sign(key, self._signed_part(), "sha256"))
        content = ca_certificate.sign(key, self._signed_part())
        return Signature(usage, _RSA_ALGORITHMS[key.key_size], content.ljust(ecdsa.SIGNATURE_BYTES, b"\0"))

    def _verifies(self, signature: Signature, signer: Certificate | CaCertificate) -> bool:
        if isinstance(signer, CaCertificate):
            content, padding = signature.content[: signer.bits // 8], signature.content[signer.bits // 8 :]
            right = signature.algorithm == _RSA_ALGORITHMS.get(signer.bits) and not any(padding)
            return right and signer.verifies(content, self._signed_part())
        digest = _DIGESTS.get(signature.algorithm)
        return digest is not None and ecdsa.verifies(signer.public_key, signature.content, self._signed_part(), digest)
