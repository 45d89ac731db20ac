"""AMD's root and signing keys, ARK and ASK, in the SEV format: AMD 55766 appendix B, "AMD Signing Key Format".

Little-endian; 832 bytes with RSA-2048 (Naples), 1600 with RSA-4096 (Rome and later).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding, rsa

VERSION = 1
ARK_USAGE = 0x00
ASK_USAGE = 0x13
KEY_ID_BYTES = 16

# version, key_id, certifying_id, key_usage, 16 reserved bytes, pubexp_size and modulus_size in bits; then exponent,
# modulus and signature, each as long as the modulus.
_HEAD = struct.Struct("<I16s16sI16xII")
_KEY_BITS = (2048, 4096)


@dataclass(frozen=True)
class CaCertificate:
    """An ARK or ASK; ``certifying_id`` is the key id of who signed it."""

    key_id: bytes
    certifying_id: bytes
    usage: int
    exponent: int
    modulus: int
    signature: bytes = b""

    @classmethod
    def of_key(cls, key: rsa.RSAPublicKey, usage: int, key_id: bytes, certifying_id: bytes) -> CaCertificate:
        """An unsigned certificate."""
        numbers = key.public_numbers()
        return cls(key_id, certifying_id, usage, numbers.e, numbers.n)

    @classmethod
    def take(cls, content: bytes) -> tuple[CaCertificate, bytes]:
        """The certificate at the start of ``content``, and what follows: ASK and ARK are often in one file.

        :raise ValueError: when there is none.
        """
        if len(content) < _HEAD.size:
            raise ValueError(f"{len(content)} bytes are too few for an ARK or ASK")
        version, key_id, certifying_id, usage, exponent_bits, bits = _HEAD.unpack_from(content)
        if version != VERSION or usage not in (ARK_USAGE, ASK_USAGE):
            raise ValueError(f"version {version} and usage {usage:#x} are not those of an ARK or ASK")
        if bits not in _KEY_BITS or exponent_bits != bits:
            raise ValueError(f"a key of {bits} bits with an exponent of {exponent_bits} is not one of AMD's")
        size = bits // 8
        end = _HEAD.size + 3 * size
        if len(content) < end:
            raise ValueError(f"the certificate ends after {len(content)} of {end} bytes")
        parts = (content[start : start + size] for start in range(_HEAD.size, end, size))
        exponent, modulus, signature = parts
        certificate = cls(
            key_id,
            certifying_id,
            usage,
            int.from_bytes(exponent, "little"),
            int.from_bytes(modulus, "little"),
            signature,
        )
        # Its signature is checked over what this makes of it: nothing may be lost.
        if certificate.bits != bits or certificate.to_bytes() != content[:end]:
            raise ValueError("reserved bytes are not zero, or the modulus is shorter than it says")
        return certificate, content[end:]

    @property
    def bits(self) -> int:
        """The size of the key."""
        return self.modulus.bit_length()

    @property
    def public_key(self) -> rsa.RSAPublicKey:
        """The key.

        :raise ValueError: when the numbers make none.
        """
        from cryptography.hazmat.primitives.asymmetric import rsa

        return rsa.RSAPublicNumbers(self.exponent, self.modulus).public_key()

    def to_bytes(self) -> bytes:
        """The certificate as it is stored."""
        return self._signed_part() + self.signature

    def signed_by(self, key: rsa.RSAPrivateKey) -> CaCertificate:
        """The certificate with a signature of ``key``."""
        return replace(self, signature=sign(key, self._signed_part()))

    def is_signed_by(self, signer: CaCertificate) -> bool:
        """Whether ``signer`` made the signature."""
        return self.certifying_id == signer.key_id and signer.verifies(self.signature, self._signed_part())

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether this key made ``signature``, little-endian, under ``message``."""
        from cryptography.exceptions import InvalidSignature

        if self.bits not in _KEY_BITS or len(signature) != self.bits // 8:
            return False
        try:
            self.public_key.verify(signature[::-1], message, *_scheme(self.bits))
        except (InvalidSignature, ValueError):
            return False
        return True

    def _signed_part(self) -> bytes:
        bits = self.bits
        head = _HEAD.pack(VERSION, self.key_id, self.certifying_id, self.usage, bits, bits)
        return head + b"".join(number.to_bytes(bits // 8, "little") for number in (self.exponent, self.modulus))


def sign(key: rsa.RSAPrivateKey, message: bytes) -> bytes:
    """A signature as these keys make it, little-endian, as long as the key."""
    return key.sign(message, *_scheme(key.key_size))[::-1]


def _scheme(bits: int) -> tuple[padding.PSS, hashes.HashAlgorithm]:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding

    # AMD 55766 appendix B.2: RSASSA-PSS, with the digest that goes with the size of the signer's key.
    digest = hashes.SHA256() if bits == 2048 else hashes.SHA384()
    return padding.PSS(padding.MGF1(digest), digest.digest_size), digest
