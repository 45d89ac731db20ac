"""Sizes in bytes, written with the usual suffixes."""

from __future__ import annotations

import re

MEBIBYTE = 1 << 20
# The huge pages of x86-64, as a profile names them.
PAGE_SIZES = {"2M": 2 * MEBIBYTE, "1G": 1024 * MEBIBYTE}

_FACTORS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([KMGT])(?:iB|B)?|B)?", re.IGNORECASE)


def parse_size(value: object) -> int:
    """The number of bytes that ``value`` means: an int of bytes, or text such as ``4G``, ``512M``, ``65536 KiB``.

    All suffixes are powers of 1024.

    :raise ValueError: when it is neither, or not a whole number of bytes.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"wanted a size such as 4G, 512M or 65536K, found {value!r}")
    size = float(match[1]) * _FACTORS[(match[2] or "").upper()]
    if not size.is_integer():
        raise ValueError(f"wanted a whole number of bytes, found {value!r}")
    return int(size)


def format_size(size: int) -> str:
    """``size`` bytes in the largest unit that divides it: 4294967296 is ``4G``."""
    for suffix in ("T", "G", "M", "K"):
        if size and size % _FACTORS[suffix] == 0:
            return f"{size // _FACTORS[suffix]}{suffix}"
    return str(size)


def mebibytes(size: int) -> str:
    """``size`` bytes for people, in MiB, rounded up: what is counted so is never too little."""
    return f"{-(-size >> 20)} MiB"


def huge_pages_folder(size: str) -> str:
    """The kernel's name for the folder of huge pages of a size of :data:`PAGE_SIZES`."""
    return f"hugepages-{PAGE_SIZES[size] >> 10}kB"
