"""The values of an imported profile -> YAML, with comments that tell where each one came from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from sevlaunch.libvirt.outcomes import Key, Origin, Outcome
from sevlaunch.libvirt.reasons import LOST, Kind
from sevlaunch.profile.model import Profile

# Text that needs no quotes in YAML, whichever of its versions a reader follows.
_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9/_.+-]*")
_WORDS = ("true", "false", "yes", "no", "on", "off", "null", "y", "n")
_NUMBER = re.compile(r"0x[0-9a-f]+|[0-9]+[KMGT]")


def write_profile(values: dict[Key, Origin], outcomes: Sequence[Outcome], head: Sequence[str]) -> str:
    """The profile's text.

    :param values: each value by its key.
    :param outcomes: what is lost is listed at the end.
    :param head: the lines of the comment that it starts with.
    """
    lines = [_comment(line) for line in head]
    tree = _tree(values)
    for key in Profile.__struct_fields__:
        if key in tree:
            lines += _mapping({key: tree[key]}, "")
    lost = [outcome for outcome in outcomes if outcome.kind in LOST]
    if lost:
        lines += ["", "# The domain has these, the profile has not:"]
        lines += [_comment(f"line {outcome.line}: {outcome.element}: {outcome.reason}") for outcome in lost]
    return "\n".join(lines) + "\n"


def _tree(values: dict[Key, Origin]) -> dict[str | int, Any]:
    """Nested mappings, lists as mappings of their positions; a device with keys of its own is no longer just true."""
    root: dict[str | int, Any] = {}
    for key, origin in values.items():
        inner = root
        for part in key[:-1]:
            below = inner.setdefault(part, {})
            if isinstance(below, Origin):
                below = inner[part] = {}
            inner = below
        inner[key[-1]] = origin
    return root


def _mapping(mapping: dict[str | int, Any], indent: str) -> Iterator[str]:
    for key, below in mapping.items():
        if isinstance(below, Origin):
            yield f"{indent}{key}: {_scalar(below.value)}{_origin(below.outcome)}"
        elif all(isinstance(part, int) for part in below):
            yield f"{indent}{key}:"
            for entry in below.values():
                yield from _entry(entry, indent + "  ")
        else:
            yield f"{indent}{key}:"
            yield from _mapping(below, indent + "  ")


def _entry(entry: Any, indent: str) -> Iterator[str]:
    if isinstance(entry, Origin):
        yield f"{indent}- {_scalar(entry.value)}{_origin(entry.outcome)}"
        return
    for index, line in enumerate(_mapping(entry, indent + "  ")):
        yield f"{indent}- {line[len(indent) + 2 :]}" if index == 0 else line


def _origin(outcome: Outcome) -> str:
    text = f"line {outcome.line}: {outcome.element}"
    if outcome.kind is Kind.CORRECTED:
        text += f", corrected: {outcome.reason}"
    elif outcome.reason:
        text += f", {outcome.reason}"
    return f"  {_comment(text)}"


def _comment(text: str) -> str:
    # A line end or another control character would end the comment.
    printable = "".join(character if character.isprintable() else " " for character in text)
    return f"# {printable}".rstrip()


def _scalar(value: str | int | bool | None) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    text = str(value)
    if (_PLAIN.fullmatch(text) and text.lower() not in _WORDS) or _NUMBER.fullmatch(text):
        return text
    return str(yaml.safe_dump(text, default_style='"', allow_unicode=True, width=1 << 30)).rstrip("\n")
