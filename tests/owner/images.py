"""Firmware for tests: small OVMF images made on the spot, and published ones of which only numbers are kept."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from functools import cached_property
from math import isqrt
from uuid import UUID

from sevlaunch.owner.firmware import Firmware, Sha256
from sevlaunch.sevapi.ovmf import ES_RESET_BLOCK, FOOTER, HASHES_TABLE, SECRET_AREA, SEV_METADATA, Section, SectionKind

RESET_EIP = 0x80B004
HASHES_GPA = 0x810C00

# The sections of OVMF.fd of edk2-stable202405: OvmfPkg/AmdSev/AmdSevX64.dsc, and OvmfPkg/OvmfPkgX64.dsc.
_COMMON = (
    Section(0x800000, 0x9000, SectionKind.SNP_SEC_MEM),
    Section(0x80A000, 0x3000, SectionKind.SNP_SEC_MEM),
    Section(0x80D000, 0x1000, SectionKind.SNP_SECRETS),
    Section(0x80E000, 0x1000, SectionKind.CPUID),
    Section(0x80F000, 0x1000, SectionKind.SVSM_CAA),
)
AMDSEV_SECTIONS = (
    *_COMMON,
    Section(0x810000, 0x1000, SectionKind.SNP_KERNEL_HASHES),
    Section(0x811000, 0xF000, SectionKind.SNP_SEC_MEM),
)
OVMFX64_SECTIONS = (*_COMMON, Section(0x810000, 0x10000, SectionKind.SNP_SEC_MEM))


def ovmf(
    *,
    size: int = 0x10000,
    fill: int = 0xFF,
    reset_eip: int = RESET_EIP,
    hashes_gpa: int = HASHES_GPA,
    hashes_size: int = 0x400,
    secret_area: tuple[int, int] = (0x810000, 0xC00),
    sections: tuple[Section, ...] = AMDSEV_SECTIONS,
) -> bytes:
    """An image that has nothing but what launches need."""
    metadata = struct.pack("<4sIII", b"ASEV", 16 + 12 * len(sections), 1, len(sections))
    metadata += b"".join(struct.pack("<III", one.gpa, one.size, one.kind) for one in sections)
    image = bytearray([fill]) * size
    image[-1024 : -1024 + len(metadata)] = metadata
    entries = (
        (SEV_METADATA, struct.pack("<I", 1024)),
        (HASHES_TABLE, struct.pack("<II", hashes_gpa, hashes_size)),
        (SECRET_AREA, struct.pack("<II", *secret_area)),
        (ES_RESET_BLOCK, struct.pack("<I", reset_eip)),
    )
    table = b"".join(_entry(guid, data) for guid, data in entries)
    table += struct.pack("<H16s", len(table) + 18, FOOTER.bytes_le)
    image[-32 - len(table) : -32] = table
    return bytes(image)


def _entry(guid: UUID, data: bytes) -> bytes:
    return data + struct.pack("<H16s", len(data) + 18, guid.bytes_le)


@dataclass(frozen=True, eq=False)
class PublishedFirmware(Firmware):
    """An image of which the state of SHA-256 after it is known, and what its table says."""

    state: bytes = b""
    size: int = 4096
    eip: int = RESET_EIP

    @cached_property
    def measured(self) -> Sha256:
        return SpecSha256(self.state, self.size)

    @cached_property
    def reset_eip(self) -> int:
        return self.eip

    @cached_property
    def hashes_gpa(self) -> int:
        return HASHES_GPA


def _primes(count: int) -> list[int]:
    found: list[int] = []
    number = 2
    while len(found) < count:
        if all(number % prime for prime in found):
            found.append(number)
        number += 1
    return found


def _cube_root(number: int) -> int:
    low, high = 0, 1 << (number.bit_length() // 3 + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if middle**3 <= number else (low, middle)
    return low


_WORD = 0xFFFFFFFF
_CONSTANTS = [_cube_root(prime << 96) & _WORD for prime in _primes(64)]
INITIAL_STATE = struct.pack(">8I", *(isqrt(prime << 64) & _WORD for prime in _primes(8)))


def _rotated(word: int, *counts: int) -> int:
    result = 0
    for count in counts:
        result ^= word >> count | word << 32 - count
    return result & _WORD


def _compressed(state: tuple[int, ...], block: bytes) -> tuple[int, ...]:
    """FIPS 180-4, 6.2.2."""
    words = list(struct.unpack(">16I", block))
    for index in range(16, 64):
        early = _rotated(words[index - 15], 7, 18) ^ words[index - 15] >> 3
        late = _rotated(words[index - 2], 17, 19) ^ words[index - 2] >> 10
        words.append((words[index - 16] + early + words[index - 7] + late) & _WORD)
    a, b, c, d, e, f, g, h = state
    for constant, word in zip(_CONSTANTS, words, strict=True):
        first = h + _rotated(e, 6, 11, 25) + (e & f ^ ~e & g) + constant + word
        second = _rotated(a, 2, 13, 22) + (a & b ^ a & c ^ b & c)
        a, b, c, d, e, f, g, h = (first + second) & _WORD, a, b, c, (d + first) & _WORD, e, f, g
    return tuple((before + after) & _WORD for before, after in zip(state, (a, b, c, d, e, f, g, h), strict=True))


@dataclass
class SpecSha256(Sha256):
    """SHA-256 by the letter of FIPS 180-4, because hashlib can't start in a given state.

    ``state``: after ``size`` bytes, whole blocks of 64.
    """

    state: bytes
    size: int
    content: bytes = field(default=b"")

    def then(self, content: bytes) -> SpecSha256:
        return SpecSha256(self.state, self.size, self.content + content)

    def digest(self) -> bytes:
        total = self.size + len(self.content)
        padded = self.content + b"\x80" + bytes(-(total + 9) % 64) + struct.pack(">Q", 8 * total)
        state = struct.unpack(">8I", self.state)
        for start in range(0, len(padded), 64):
            state = _compressed(state, padded[start : start + 64])
        return struct.pack(">8I", *state)
