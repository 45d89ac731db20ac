"""What the mappings of a profile have in common."""

# No postponed annotations: profile.validation looks at them, and to evaluate them takes longer than all else there.
from typing import ClassVar, Literal

from msgspec import Struct

Auto = Literal["auto"]


def attribute_of(key: str) -> str:
    """The attribute that holds the value of a key, which may be a word of Python's."""
    return "from_" if key == "from" else key


class Model(Struct, frozen=True, kw_only=True):
    """A mapping of a profile. ``one_of``: keys of which there is exactly one, as a rule says in words."""

    one_of: ClassVar[tuple[str, ...]] = ()
