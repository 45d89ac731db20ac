"""Where a profile came from. Apart from the loader, for commands that read no profile."""

from __future__ import annotations

from msgspec import Struct


class Origin(Struct, frozen=True):
    """How a profile is loaded again: its file, the overrides, and the folder where relative paths in those start.

    The overrides may hold what is secret: a file that has them is their user's alone, and messages do without.
    """

    file: str
    overrides: tuple[str, ...]
    folder: str
