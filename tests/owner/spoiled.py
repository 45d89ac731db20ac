"""Files that are not what they should be."""

from __future__ import annotations

from pathlib import Path

SPOILED = ("empty", "cut short", "random", "4 GiB")


def spoiled(kind: str, content: bytes, file: Path) -> Path:
    """A file that is not what it should be: empty, cut short, of random bytes, or of 4 GiB."""
    if kind == "4 GiB":
        with file.open("wb") as stream:
            stream.write(content)
            stream.truncate(4 << 30)
    else:
        file.write_bytes({"empty": b"", "cut short": content[:-1], "random": bytes(range(256)) * 9}[kind])
    return file
