"""A deliberate fault."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """``old``, which stands in ``file`` once, becomes ``new``; then each of ``tests`` fails, in one of its cases."""

    file: str
    old: str
    new: str
    tests: tuple[str, ...]
