"""What stands beside each overlay that is kept: which image it was made for."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from msgspec import Struct

from sevlaunch.opening import open_regular

_MOST_BYTES = 1 << 16


class ImageIdentity(Struct, frozen=True):
    """Which file an overlay was made for, as far as a look at it without reading it can tell."""

    image: str
    size: int
    mtime_ns: int
    inode: int

    def is_that_of(self, other: ImageIdentity) -> bool:
        """Whether it is the same file, unchanged; it may have been moved."""
        return (self.size, self.mtime_ns, self.inode) == (other.size, other.mtime_ns, other.inode)

    def describe(self) -> str:
        """For people."""
        changed = datetime.fromtimestamp(self.mtime_ns / 1e9, UTC).isoformat(" ", "microseconds")
        return f"{self.image}, {self.size} bytes, changed {changed}, inode {self.inode}"


def note_of(overlay: Path) -> Path:
    """Where the note of an overlay is."""
    return overlay.with_suffix(".json")


def read_note(overlay: Path) -> ImageIdentity:
    """What the note of an overlay says.

    :raise OSError: or :raise ValueError: when it can't be read.
    """
    try:
        with open_regular(note_of(overlay)) as stream:
            return msgspec.convert(json.loads(stream.read(_MOST_BYTES)), ImageIdentity)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def guests_above(image: Path, state: Path) -> list[str]:
    """The guests that keep an overlay of ``image``, by name.

    :param state: the folder of what outlives guests.
    """
    found = set()
    for overlay in state.glob("*/*/*.qcow2"):
        # Without a note that can be read, an overlay is never used again.
        with suppress(OSError, ValueError):
            if read_note(overlay).image == str(image):
                found.add(overlay.parents[1].name)
    return sorted(found)
