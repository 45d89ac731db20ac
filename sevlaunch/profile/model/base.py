"""What the mappings of a profile have in common.

The annotations of the model are postponed everywhere: to evaluate all takes longer than all else that a profile needs.
profile.validation evaluates those of the keys that a profile has.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from msgspec import Meta, Struct

Auto = Literal["auto"]
FILE_OR_TEXT = Meta(
    description="the path of a file, or {text: ...}",
    extra_json_schema={
        "type": ["string", "object"],
        "properties": {"text": {"type": "string"}},
        "required": ["text"],
        "additionalProperties": False,
    },
)


def attribute_of(key: str) -> str:
    """The attribute that holds the value of a key, which may be a word of Python's."""
    return "from_" if key == "from" else key


class Model(Struct, frozen=True, kw_only=True):
    """A mapping of a profile.

    ``one_of``: keys of which there is exactly one, as a rule says in words.
    ``types_of_few``: keys that few profiles have, with the modules of their types, which are imported for those alone.
    """

    one_of: ClassVar[tuple[str, ...]] = ()
    types_of_few: ClassVar[dict[str, str]] = {}
