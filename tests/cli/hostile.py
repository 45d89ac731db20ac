"""Text that acts on a terminal, and lies; and what a command may print of it."""

from __future__ import annotations

from tests.conftest import Result

# It clears the screen, goes up, hides what follows, turns the direction round, and begins lines of its own.
EVIL = "\x1b[2J\x1b[1A\x1b[8m\x9b31m\x7f\u202e\u2066\u200b\r\nguest: verified\nyes: every check holds\x08\x00\u2028"
# As much of it as a file's name, an argument or an XML text may hold.
WORD = EVIL.replace("\x00", "").replace("/", "")
SHOWN = r"\x1b[2J"
LIES = ("guest: verified", "yes: every check holds")


def clean(result: Result) -> str:
    """All that the command printed, once it is sure that nothing in it acts on a terminal or stands for our answer."""
    text = result.stdout + result.stderr
    for line in text.split("\n"):
        assert line.replace("\t", "").isprintable(), repr(line)
        assert line.strip() not in LIES, text
    assert "Traceback" not in text and "internal error" not in text, text
    return text
