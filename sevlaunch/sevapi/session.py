"""The launch session between guest owner and secure processor: AMD 55766, LAUNCH_START, "Session Data"."""

from __future__ import annotations

import hmac
import struct
from typing import TYPE_CHECKING, NamedTuple

from sevlaunch.sevapi.status import FirmwareError, Status

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

KEY_BYTES = 16
SIZE = 128

# NONCE, WRAP_TK, IV, MAC of WRAP_TK, MAC of the policy.
_SESSION = struct.Struct("<16s32s16s32s32s")


class TransportKeys(NamedTuple):
    """TEK encrypts what the owner sends, TIK authenticates it; 16 bytes each. Never printed."""

    tek: bytes
    tik: bytes

    def __repr__(self) -> str:
        return "TransportKeys()"


def kdf(key: bytes, label: str, context: bytes = b"") -> bytes:
    """A key of 16 bytes: NIST SP 800-108 in counter mode with HMAC-SHA-256; AMD 55766, "Key Derivation".

    One block of HMAC-SHA-256 has more than is wanted: the counter stays at 1.
    """
    message = struct.pack("<I", 1) + label.encode() + b"\0" + context + struct.pack("<I", 8 * KEY_BYTES)
    return hmac.digest(key, message, "sha256")[:KEY_BYTES]


def wrap(keys: TransportKeys, policy: int, z: bytes, nonce: bytes, iv: bytes) -> bytes:
    """The session blob, 128 bytes.

    :param z: x coordinate that owner and processor agreed on, big-endian.
    :param nonce: 16 random bytes.
    :param iv: 16 random bytes.
    """
    kek, kik = _wrapping_keys(z, nonce)
    wrapped = aes_128_ctr(kek, iv, keys.tek + keys.tik)
    wrap_mac = hmac.digest(kik, wrapped, "sha256")
    policy_mac = hmac.digest(keys.tik, struct.pack("<I", policy), "sha256")
    return _SESSION.pack(nonce, wrapped, iv, wrap_mac, policy_mac)


def unwrap(session: bytes, policy: int, z: bytes) -> TransportKeys:
    """The keys in a session blob, as the secure processor takes them out.

    :raise FirmwareError: INVALID_LENGTH, or BAD_MEASUREMENT when a MAC does not match.
    """
    if len(session) != SIZE:
        raise FirmwareError(Status.INVALID_LENGTH)
    nonce, wrapped, iv, wrap_mac, policy_mac = _SESSION.unpack(session)
    kek, kik = _wrapping_keys(z, nonce)
    if not hmac.compare_digest(hmac.digest(kik, wrapped, "sha256"), wrap_mac):
        raise FirmwareError(Status.BAD_MEASUREMENT)
    both = aes_128_ctr(kek, iv, wrapped)
    keys = TransportKeys(both[:KEY_BYTES], both[KEY_BYTES:])
    if not hmac.compare_digest(hmac.digest(keys.tik, struct.pack("<I", policy), "sha256"), policy_mac):
        raise FirmwareError(Status.BAD_MEASUREMENT)
    return keys


def agree(private: ec.EllipticCurvePrivateKey, public: ec.EllipticCurvePublicKey) -> bytes:
    """The shared secret z of ECDH on P-384: 48 bytes, big-endian."""
    from cryptography.hazmat.primitives.asymmetric import ec

    return private.exchange(ec.ECDH(), public)


def aes_128_ctr(key: bytes, iv: bytes, text: bytes) -> bytes:
    """AES-128 in counter mode; the same both ways."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    encryptor = Cipher(algorithms.AES(key), modes.CTR(iv)).encryptor()
    return encryptor.update(text) + encryptor.finalize()


def _wrapping_keys(z: bytes, nonce: bytes) -> tuple[bytes, bytes]:
    master = kdf(z, "sev-master-secret", nonce)
    return kdf(master, "sev-kek"), kdf(master, "sev-kik")
