"""Text that people see: names that can be printed as they are, and what others wrote, made visible."""

from __future__ import annotations

import re

# What a terminal acts on, or hides, or can't show. Python calls it not printable: the Unicode categories Other and
# Separator; of those, spaces that only look like one are left as they are.
_SPACES = "\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000"
_ASKED = re.compile(rf"[^\x20-\x7e{_SPACES}]")


def visible(text: str) -> str:
    """``text`` in one line in which control characters are visible, as Python writes them in a string.

    Control characters are C0, DEL and C1, line ends, those that format text or change its direction, lone surrogates,
    and what Unicode has not assigned.
    """
    return text if text.isprintable() else _ASKED.sub(_shown, text)


def visible_lines(text: str) -> str:
    """As :func:`visible`, for text of several lines: tabs and line ends stay, those of a terminal too."""
    lines = text.replace("\r\n", "\n").split("\n")
    return "\n".join("\t".join(map(visible, line.split("\t"))) for line in lines)


def _shown(match: re.Match[str]) -> str:
    character = match[0]
    if character.isprintable():
        return character
    return ascii(character)[1:-1]


def check_guest_name(value: object) -> str:
    """``value``, which is fit to be a guest's name: that of a folder, printed in tables.

    :raise ValueError: when it is not.
    """
    if (
        not isinstance(value, str)
        or not value
        or value[0] in ".-"
        or "/" in value
        or not value.isprintable()
        or len(value.encode()) > 64
    ):
        raise ValueError(
            f"wanted 1 to 64 bytes of printable text without '/', not starting with '.' or '-', found {value!r}"
        )
    return value
