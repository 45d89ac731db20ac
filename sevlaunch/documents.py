"""What the documents that sevlaunch reads have in common: their texts' patterns, and reading them from JSON."""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec

_Document = TypeVar("_Document")

# After "$" alone, a last line end would go unnoticed. ECMA-262 knows this form, too.
_END = r"$(?!\n)"
# What msgspec says of a document.
_MISTAKE = re.compile(r"(?P<what>.*?)(?: - at `(?:key in )?\$\.?(?P<place>.*)`)?", re.DOTALL)
_KEY = re.compile(r"Object (?P<what>contains unknown|missing required) field `(?P<key>.*)`", re.DOTALL)


def matching(pattern: str, description: str | None = None, *, wanted: str = "") -> msgspec.Meta:
    """For a text's type: all of it has to match the regular expression ``pattern``; ``wanted`` says so in words."""
    return msgspec.Meta(pattern=f"^(?:{pattern}){_END}", description=description, extra={"wanted": wanted})


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
    match = _MISTAKE.fullmatch(message)
    what, place = (match["what"], match["place"] or "") if match else (message, "")
    if key := _KEY.fullmatch(what):
        place = f"{place}.{key['key']}" if place else key["key"]
        what = "is required" if key["what"] == "missing required" else "unknown key"
    elif what.startswith("Invalid enum value"):
        what = "wanted one of the known values"
    what = what.replace("`", "")
    text = f"{place}: {what[:1].lower()}{what[1:]}" if place else f"{what[:1].lower()}{what[1:]}"
    # What is quoted may come from a host that nobody trusts, and goes to a terminal.
    return "".join(sign if sign.isprintable() else "?" for sign in text)
