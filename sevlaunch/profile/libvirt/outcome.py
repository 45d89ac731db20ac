"""What can become of a part of a domain."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct


class Kind(StrEnum):
    """The kinds of outcome. After the last two the guest lacks something that the domain has."""

    CARRIED = "carried"
    CORRECTED = "corrected"
    DROPPED = "dropped"
    UNSUPPORTED = "not supported"
    REFUSED = "refused"


LOST = (Kind.UNSUPPORTED, Kind.REFUSED)


class Outcome(Struct, frozen=True):
    """What became of one part of the XML: ``element`` such as ``devices/disk/driver@cache``, at its line.

    ``key`` is the dotted key of the profile, where there is one; ``reason`` is empty for what is carried as it is.
    """

    kind: Kind
    line: int
    element: str
    key: str = ""
    reason: str = ""
