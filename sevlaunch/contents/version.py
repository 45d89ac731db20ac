"""Which of two versions is newer: the UAPI Group's Version Format Specification."""

from __future__ import annotations

import re

_PIECE = re.compile(r"[0-9]+|[A-Za-z]+|[~\-^.]")
# In the order in which they decide: what is before the release, the end, what comes after it, separators.
_MARKS = {"~": 0, "": 1, "-": 2, "^": 3, ".": 4}


def compare_versions(one: str, other: str) -> int:
    """-1 where ``one`` is older, 0 where they are the same, 1 where it is newer."""
    left, right = _PIECE.findall(one), _PIECE.findall(other)
    for index in range(max(len(left), len(right))):
        mine = _weight(left[index] if index < len(left) else "")
        theirs = _weight(right[index] if index < len(right) else "")
        if mine != theirs:
            return -1 if mine < theirs else 1
    return 0


def _weight(piece: str) -> tuple[int, int, str]:
    if piece in _MARKS:
        return _MARKS[piece], 0, ""
    if not piece.isdigit():
        return 5, 0, piece
    number = piece.lstrip("0")
    return 6, len(number), number
