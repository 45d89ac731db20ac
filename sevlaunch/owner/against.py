"""A digest to compare with: as hexadecimal digits, or out of the ID block, report or lock file that has it."""

from __future__ import annotations

import re
from pathlib import Path

from sevlaunch.errors import UsageError
from sevlaunch.files import read_bounded, recognise
from sevlaunch.owner.lock import MAX_BYTES, read_lock
from sevlaunch.sevapi.id_block import IdBlock
from sevlaunch.sevapi.report import Report

_DIGEST = re.compile(r"(?:0x)?([0-9a-fA-F]{64}|[0-9a-fA-F]{96})")


def read_digests(text: str) -> tuple[bytes, ...]:
    """The digests, as good as each other, that ``text`` is or the file of that name has: of 32 bytes, for SNP 48.

    :raise UsageError: when it is none of these, or the file can't be read.
    """
    if match := _DIGEST.fullmatch(text.strip()):
        return (bytes.fromhex(match[1]),)
    file = Path(text)
    content = read_bounded(file, "--against", MAX_BYTES)
    if content.lstrip().startswith(b"{"):
        return tuple(read_lock(file).expectation().digests.values())
    wanted = "a digest, an ID block, a report or a lock file"
    return (recognise(content, _digest, name=f"--against: {file}", wanted=wanted, error=UsageError),)


def _digest(content: bytes) -> bytes:
    try:
        return IdBlock.from_bytes(content).digest
    except ValueError:
        return Report.from_bytes(content).measurement
