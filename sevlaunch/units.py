"""Sizes in bytes, written with the usual suffixes, and lists of numbers, written as ranges."""

from __future__ import annotations

import re
from collections.abc import Iterable

MEBIBYTE = 1 << 20
# The huge pages of x86-64, as a profile names them.
PAGE_SIZES = {"2M": 2 * MEBIBYTE, "1G": 1024 * MEBIBYTE}

_RANGE = r"([0-9]{1,5})(?:-([0-9]{1,5}))?"
_FACTORS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = r"(?i)(\d+(?:\.\d+)?)\s*(?:([KMGT])(?:iB|B)?|B)?"


def parse_size(value: object) -> int:
    """The number of bytes that ``value`` means: an int of bytes, or text such as ``4G``, ``512M``, ``65536 KiB``.

    All suffixes are powers of 1024.

    :raise ValueError: when it is neither, or not a whole number of bytes.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = re.fullmatch(_SIZE, value.strip()) if isinstance(value, str) else None
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


def parse_ranges(text: str) -> list[int]:
    """The numbers in text such as ``0-3,8``, the kernel's way to write lists of CPUs and of NUMA nodes, in its order.

    :raise ValueError: when it is no such list, or a range ends before it begins.
    """
    numbers: list[int] = []
    for part in text.split(",") if text else ():
        match = re.fullmatch(_RANGE, part)
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise ValueError(f"wanted numbers and ranges such as 0-3,8, found {text!r}")
        numbers += range(int(match[1]), int(match[2] or match[1]) + 1)
    return numbers


def format_ranges(numbers: Iterable[int]) -> str:
    """``numbers`` as the kernel writes such lists: 0, 1, 2 and 8 are ``0-2,8``."""
    runs: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return ",".join(f"{first}-{last}" if first != last else str(first) for first, last in runs)
