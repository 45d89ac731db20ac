"""Text that people see: names that can be printed as they are, and what others wrote, made visible."""

from __future__ import annotations

import re
from codecs import getincrementaldecoder

# What a terminal acts on, or hides, or can't show. Python calls it not printable: the Unicode categories Other and
# Separator; of those, spaces that only look like one are left as they are.
_SPACES = "\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000"
_ASKED = rf"[^\x20-\x7e{_SPACES}]"

# Terminals want the carriage to return, too.
_LINE_END = r"\r+\n"
# ECMA-48, SGR: it changes how text looks, and may hide some.
_COLOUR = r"\x1b\[[0-9;]*m"
_UNFINISHED = r"(?:\r+|\x1b(?:\[[0-9;]{0,64})?)\Z"


def visible(text: str) -> str:
    """``text`` in one line in which control characters are visible, as Python writes them in a string.

    Control characters are C0, DEL and C1, line ends, those that format text or change its direction, lone surrogates,
    and what Unicode has not assigned.
    """
    return text if text.isprintable() else re.sub(_ASKED, _shown, text)


def visible_lines(text: str) -> str:
    """As :func:`visible`, for text of several lines: tabs and line ends stay, those of a terminal too."""
    lines = re.sub(_LINE_END, "\n", text).split("\n")
    return "\n".join("\t".join(map(visible, line.split("\t"))) for line in lines)


class VisibleStream:
    """What a terminal is sent, piece by piece, as :func:`visible_lines`; colours are left out."""

    def __init__(self) -> None:
        self._decoder = getincrementaldecoder("utf-8")("backslashreplace")
        self._held = ""

    def feed(self, piece: bytes, *, final: bool = False) -> str:
        """The text of ``piece``; what only the next one decides is held until then, if there is one."""
        text = self._held + self._decoder.decode(piece, final)
        unfinished = None if final else re.search(_UNFINISHED, text)
        self._held = unfinished[0] if unfinished else ""
        return visible_lines(re.sub(_COLOUR, "", text.removesuffix(self._held)))


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
    # Not what it was in a document, which knows its place there.
    return str(value)
