"""Values that an owner gives on the command line, and what is wrong with those in a file."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sevlaunch.errors import UsageError

if TYPE_CHECKING:
    from pydantic import ValidationError

_HEXADECIMAL = re.compile(r"(?:0x)?([0-9a-fA-F]*)")


def bytes_of_hex(text: str, what: str, size: int) -> bytes:
    """The ``size`` bytes that ``text`` stands for.

    :raise UsageError: when it stands for others.
    """
    match = _HEXADECIMAL.fullmatch(text.strip())
    if match is None or len(match[1]) != 2 * size:
        raise UsageError(f"{what}: wanted {size} bytes as {2 * size} hexadecimal digits, found {text!r}")
    return bytes.fromhex(match[1])


def first_mistake(error: ValidationError) -> str:
    """Where the first mistake of a document stands, and what it is; never the value itself."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}" if place else first["msg"]
