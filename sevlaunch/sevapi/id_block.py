"""ID block and ID authentication of an SNP launch: AMD 56860 section 8.16, tables "ID_BLOCK" and "ID_AUTH_INFO"."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sevlaunch.sevapi import ecdsa

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

VERSION = 1
ECDSA_P384_SHA384 = 1

# LD, FAMILY_ID, IMAGE_ID, VERSION, GUEST_SVN, POLICY.
_BLOCK = struct.Struct("<48s16s16sIIQ")
# ID_KEY_ALGO, AUTH_KEY_ALGO, reserved, ID_BLOCK_SIG, ID_KEY, reserved, ID_KEY_SIG, AUTHOR_KEY, reserved.
_AUTHENTICATION = struct.Struct(
    f"<II56x{ecdsa.SIGNATURE_BYTES}s{ecdsa.KEY_BYTES}s60x{ecdsa.SIGNATURE_BYTES}s{ecdsa.KEY_BYTES}s892x"
)
BLOCK_BYTES = _BLOCK.size
# What an anonymous block says beside digest and policy, and its signature: those of Edgeless Systems' Contrast
# (internal/idblock), so that whoever computes the key's digest of the same launch finds the same one.
ANONYMOUS_FAMILY_ID, ANONYMOUS_IMAGE_ID = bytes([1]).ljust(16, b"\0"), bytes([2]).ljust(16, b"\0")
ANONYMOUS_GUEST_SVN = 2
ANONYMOUS_R, ANONYMOUS_S = 2, 1
AUTHENTICATION_BYTES = _AUTHENTICATION.size


@dataclass(frozen=True)
class IdBlock:
    """What a launch has to be: its digest (48 bytes), policy, and the owner's names for it (16 bytes each)."""

    digest: bytes
    policy: int
    family_id: bytes = bytes(16)
    image_id: bytes = bytes(16)
    guest_svn: int = 0
    version: int = VERSION

    @classmethod
    def anonymous(cls, digest: bytes, policy: int) -> IdBlock:
        """The block that goes with :meth:`IdAuthentication.anonymous`: a function of digest and policy."""
        return cls(digest, policy, ANONYMOUS_FAMILY_ID, ANONYMOUS_IMAGE_ID, ANONYMOUS_GUEST_SVN)

    @classmethod
    def from_bytes(cls, content: bytes) -> IdBlock:
        """The block in 96 bytes.

        :raise ValueError: when there are not as many.
        """
        _check_length("an ID block", content, BLOCK_BYTES)
        digest, family_id, image_id, version, guest_svn, policy = _BLOCK.unpack(content)
        return cls(digest, policy, family_id, image_id, guest_svn, version)

    def to_bytes(self) -> bytes:
        """The 96 bytes."""
        return _BLOCK.pack(self.digest, self.family_id, self.image_id, self.version, self.guest_svn, self.policy)


@dataclass(frozen=True)
class IdAuthentication:
    """The signatures that go with an ID block; keys and signatures in AMD's layout (:mod:`sevlaunch.sevapi.ecdsa`)."""

    block_signature: bytes
    id_key: bytes
    id_key_signature: bytes = bytes(ecdsa.SIGNATURE_BYTES)
    author_key: bytes = bytes(ecdsa.KEY_BYTES)
    id_key_algorithm: int = ECDSA_P384_SHA384
    author_key_algorithm: int = ECDSA_P384_SHA384

    @classmethod
    def make(
        cls, block: IdBlock, id_key: ec.EllipticCurvePrivateKey, author_key: ec.EllipticCurvePrivateKey | None
    ) -> IdAuthentication:
        """Sign ``block`` by the ID key, and that key by the author's."""
        public = ecdsa.key_to_bytes(id_key.public_key())
        signature = ecdsa.sign(id_key, block.to_bytes(), "sha384")
        if author_key is None:
            return cls(signature, public, author_key_algorithm=0)
        author_signature = ecdsa.sign(author_key, public, "sha384")
        return cls(signature, public, author_signature, ecdsa.key_to_bytes(author_key.public_key()))

    @classmethod
    def anonymous(cls, block: IdBlock) -> IdAuthentication:
        """A signature of ``block`` that nobody made: it is fixed, and the ID key is the one under which it is right.

        Nobody has the private key, to sign another block with: the key stands for this block alone. Of the two keys
        the smaller one is taken, by x, then y.
        """
        # Few launches have such a block.
        from sevlaunch.sevapi.recovery import recover_keys

        key = recover_keys(block.to_bytes(), ANONYMOUS_R, ANONYMOUS_S)[0]
        return cls(ecdsa.signature_bytes(ANONYMOUS_R, ANONYMOUS_S), ecdsa.point_bytes(*key), author_key_algorithm=0)

    @classmethod
    def from_bytes(cls, content: bytes) -> IdAuthentication:
        """The information in 4096 bytes.

        :raise ValueError: when there are not as many.
        """
        _check_length("ID authentication information", content, AUTHENTICATION_BYTES)
        id_algorithm, author_algorithm, signature, id_key, key_signature, author_key = _AUTHENTICATION.unpack(content)
        return cls(signature, id_key, key_signature, author_key, id_algorithm, author_algorithm)

    def to_bytes(self) -> bytes:
        """The 4096 bytes."""
        return _AUTHENTICATION.pack(
            self.id_key_algorithm,
            self.author_key_algorithm,
            self.block_signature,
            self.id_key,
            self.id_key_signature,
            self.author_key,
        )

    def signs(self, block: bytes) -> bool:
        """Whether the ID key signed ``block``, 96 bytes."""
        return self.id_key_algorithm == ECDSA_P384_SHA384 and _verifies(self.id_key, self.block_signature, block)

    def author_signs_id_key(self) -> bool:
        """Whether the author's key signed the ID key."""
        right = self.author_key_algorithm == ECDSA_P384_SHA384
        return right and _verifies(self.author_key, self.id_key_signature, self.id_key)


def key_digest(key: bytes) -> bytes:
    """What a report says of an ID or author key: SHA-384 of the key in AMD's layout, 48 bytes."""
    return hashlib.sha384(key).digest()


def _verifies(key: bytes, signature: bytes, message: bytes) -> bool:
    try:
        public = ecdsa.key_from_bytes(key)
    except ValueError:
        return False
    return ecdsa.verifies(public, signature, message, "sha384")


def _check_length(what: str, content: bytes, wanted: int) -> None:
    if len(content) != wanted:
        raise ValueError(f"{what} has {wanted} bytes, found {len(content)}")
