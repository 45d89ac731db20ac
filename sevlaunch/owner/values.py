"""Values that an owner gives on the command line."""

from __future__ import annotations

import re

from sevlaunch.errors import UsageError

_HEXADECIMAL = re.compile(r"(?:0x)?([0-9a-fA-F]*)")


def bytes_of_hex(text: str, what: str, size: int) -> bytes:
    """The ``size`` bytes that ``text`` stands for.

    :raise UsageError: when it stands for others.
    """
    match = _HEXADECIMAL.fullmatch(text.strip())
    if match is None or len(match[1]) != 2 * size:
        raise UsageError(f"{what}: wanted {size} bytes as {2 * size} hexadecimal digits, found {text!r}")
    return bytes.fromhex(match[1])
