"""The attestation report of an SNP guest: AMD 56860 table "ATTESTATION_REPORT"; 1184 bytes, little-endian."""

from __future__ import annotations

import struct
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

from sevlaunch.sevapi import ecdsa

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

# Version 3 adds CPUID family, model and stepping; version 5 the mitigation vectors.
_BODY = struct.Struct("<IIQ16s16sII8sQI4x64s48s32s48s48s32s32s8sBBB21x64s8sBBBxBBBx8sQQ152x")
BODY_BYTES = _BODY.size
REPORT_DATA_BYTES = 64
CHIP_ID_BYTES = 64
REPORT_BYTES = BODY_BYTES + ecdsa.SIGNATURE_BYTES

OLDEST_VERSION = 2
# The newest version whose every byte is known here.
NEWEST_VERSION = 5
# Fields that are reserved in the versions before.
_SINCE = {
    3: ("cpuid_family", "cpuid_model", "cpuid_stepping"),
    5: ("launch_mit_vector", "current_mit_vector"),
}

# PLATFORM_INFO. Turins set bit 6, too, which verifiers in use call so; what else is set is shown by its number.
PLATFORM_BITS = {
    "smt": 0,
    "tsme": 1,
    "ecc": 2,
    "rapl-disabled": 3,
    "ciphertext-hiding-dram": 4,
    "alias-check-complete": 5,
    "iommu-write-safe": 6,
    "tio": 7,
}
# What REPORT_ID_MA is without a migration agent.
NO_MIGRATION_AGENT = b"\xff" * 32

# KEY_INFO.
_KEY_INFO_KNOWN = 0x1F
AUTHOR_KEY_EN = 1
_SIGNING_KEY_SHIFT = 2
_SIGNING_KEY_MASK = 0x7


class SigningKey(IntEnum):
    """Which key signs a report: KEY_INFO bits 4:2."""

    VCEK = 0
    VLEK = 1
    NONE = 7


# Boot loader, TEE, SNP, microcode; Turin has FMC before them.
_TCB = struct.Struct("<BB4xBB")
_TCB_TURIN = struct.Struct("<BBBB3xB")


class Tcb(NamedTuple):
    """Security version numbers; ``fmc`` exists since Turin, and is None before."""

    boot_loader: int
    tee: int
    snp: int
    microcode: int
    fmc: int | None = None

    @classmethod
    def from_bytes(cls, content: bytes, *, turin: bool) -> Tcb:
        """The numbers in 8 bytes, AMD 56860 section 2.2."""
        if turin:
            fmc, boot_loader, tee, snp, microcode = _TCB_TURIN.unpack(content)
            return cls(boot_loader, tee, snp, microcode, fmc)
        return cls(*_TCB.unpack(content))

    def to_bytes(self) -> bytes:
        """The 8 bytes."""
        if self.fmc is None:
            return _TCB.pack(*self[:4])
        return _TCB_TURIN.pack(self.fmc, *self[:4])


@dataclass(frozen=True)
class Report:
    """The signed fields, in the order and with the names of AMD 56860. TCBs are 8 bytes, see :class:`Tcb`."""

    version: int
    guest_svn: int
    policy: int
    family_id: bytes
    image_id: bytes
    vmpl: int
    signature_algo: int
    current_tcb: bytes
    platform_info: int
    key_info: int
    report_data: bytes
    measurement: bytes
    host_data: bytes
    id_key_digest: bytes
    author_key_digest: bytes
    report_id: bytes
    report_id_ma: bytes
    reported_tcb: bytes
    cpuid_family: int
    cpuid_model: int
    cpuid_stepping: int
    chip_id: bytes
    committed_tcb: bytes
    current_build: int
    current_minor: int
    current_major: int
    committed_build: int
    committed_minor: int
    committed_major: int
    launch_tcb: bytes
    launch_mit_vector: int
    current_mit_vector: int

    @classmethod
    def from_bytes(cls, content: bytes) -> Report:
        """The report in 1184 bytes; its signature is not looked at.

        :raise ValueError: when there are not as many.
        """
        if len(content) != REPORT_BYTES:
            raise ValueError(f"an attestation report has {REPORT_BYTES} bytes, found {len(content)}")
        return cls(*_BODY.unpack_from(content))

    @property
    def signing_key(self) -> int:
        """Which key signed: :class:`SigningKey`, or a number that it does not name."""
        return self.key_info >> _SIGNING_KEY_SHIFT & _SIGNING_KEY_MASK

    @property
    def author_key_enabled(self) -> bool:
        """Whether the launch had an author key."""
        return bool(self.key_info & AUTHOR_KEY_EN)

    @property
    def platform_bits(self) -> list[str]:
        """What is set in PLATFORM_INFO, by its name, or such as bit9 where it has none."""
        names = {number: name for name, number in PLATFORM_BITS.items()}
        return [names.get(bit, f"bit{bit}") for bit in range(64) if self.platform_info >> bit & 1]

    def reserved_set(self, content: bytes) -> list[str]:
        """What is not zero in ``content``, of which this was read, though its version reserves it."""
        names = [name for since, names in _SINCE.items() if self.version < since for name in names]
        found = [name for name in names if getattr(self, name)]
        if self.key_info & ~_KEY_INFO_KNOWN:
            found.append(f"key_info {self.key_info:#x}")
        body = self._body()
        if body != content[:BODY_BYTES]:
            found += [f"byte {at:#x}" for at in range(BODY_BYTES) if body[at] != content[at]]
        return found

    @staticmethod
    def behind_signature_set(content: bytes) -> list[str]:
        """Which bytes behind the signature of the report in ``content`` are not zero: nobody has signed those."""
        start = BODY_BYTES + ecdsa.USED_BYTES
        if not any(content[start:]):
            return []
        return [f"byte {at:#x} behind the signature" for at in range(start, REPORT_BYTES) if content[at]]

    def signed_by(self, key: ec.EllipticCurvePrivateKey) -> bytes:
        """The whole report, 1184 bytes."""
        return self.with_signature(ecdsa.sign(key, self._body(), "sha384"))

    def with_signature(self, signature: bytes) -> bytes:
        """The whole report, 1184 bytes, with a signature of 512 that was made before."""
        return self._body() + signature

    def _body(self) -> bytes:
        return _BODY.pack(*(getattr(self, name) for name in _FIELDS))


def is_signed_by(content: bytes, key: ec.EllipticCurvePublicKey) -> bool:
    """Whether ``key`` signed the report in ``content``, 1184 bytes: over the bytes as they are, reserved ones too.

    What stands behind the signature is not part of it: :meth:`Report.behind_signature_set`.
    """
    signature = content[BODY_BYTES : BODY_BYTES + ecdsa.USED_BYTES].ljust(ecdsa.SIGNATURE_BYTES, b"\0")
    return ecdsa.verifies(key, signature, content[:BODY_BYTES], "sha384")


_FIELDS = tuple(field.name for field in fields(Report))
assert len(_FIELDS) == len(_BODY.unpack(bytes(BODY_BYTES)))
