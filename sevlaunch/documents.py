"""What the documents that sevlaunch reads have in common: their texts' patterns, and reading them from JSON."""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec

_Document = TypeVar("_Document")

# What msgspec says of a document.
_MISTAKE = r"(?s)(?P<what>.*?)(?: - at `(?:key in )?\$\.?(?P<place>.*)`)?"
_KEY = r"(?s)Object (?P<what>contains unknown|missing required) field `(?P<key>.*)`"


def matching(pattern: str) -> msgspec.Meta:
    """For a text's type: all of it has to match the regular expression ``pattern``."""
    return msgspec.Meta(pattern=whole(pattern))


def whole(pattern: str) -> str:
    """The regular expression for a text that has to match ``pattern`` from its beginning to its end."""
    # After "$" alone, a last line end would go unnoticed. ECMA-262 knows this form, too.
    return rf"^(?:{pattern})$(?!\n)"


def decode(content: bytes, kind: type[_Document]) -> _Document:
    """The document in JSON.

    :raise ValueError: when it is none of this kind: where the first mistake stands, and what it is, never the value.
    """
    try:
        return msgspec.json.decode(content, type=kind)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(_mistake(str(error))) from error


def _mistake(message: str) -> str:
    match = re.fullmatch(_MISTAKE, message)
    what, place = (match["what"], match["place"] or "") if match else (message, "")
    if key := re.fullmatch(_KEY, what):
        place = f"{place}.{key['key']}" if place else key["key"]
        what = "is required" if key["what"] == "missing required" else "unknown key"
    elif what.startswith("Invalid enum value"):
        what = "wanted one of the known values"
    what = what.replace("`", "")
    text = f"{place}: {what[:1].lower()}{what[1:]}" if place else f"{what[:1].lower()}{what[1:]}"
    # What is quoted may come from a host that nobody trusts, and goes to a terminal.
    return "".join(sign if sign.isprintable() else "?" for sign in text)
