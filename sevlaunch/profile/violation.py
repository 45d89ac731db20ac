"""What a rule about a profile says where it is broken."""

from __future__ import annotations

from msgspec import Struct

from sevlaunch.errors import Problem
from sevlaunch.profile.positions import KeyPath, Positions


class Violation(Struct, frozen=True):
    """A broken rule, or a caution: the path of the value that is to blame, the reason, and what to do instead.

    ``others`` are the paths of the values that decide along with it: where one of those is wrong itself, the rule
    says nothing.
    """

    path: KeyPath
    message: str
    others: tuple[KeyPath, ...] = ()

    def located(self, positions: Positions) -> Problem:
        """The problem for the user, with file, line and column."""
        dotted = ".".join(str(part) for part in self.path)
        return Problem(self.message, location=str(positions.nearest(self.path)), path=dotted)
