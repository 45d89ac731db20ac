"""Images with hash trees for tests, made by cryptsetup's veritysetup."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests import needs

BLOCK = 4096


def veritysetup(*words: str | Path, check: int = 0) -> str:
    """What the program prints; ``check``: the exit code that it must have."""
    program = needs.program("veritysetup", "cryptsetup-bin")
    done = subprocess.run([program, *map(str, words)], capture_output=True, text=True, timeout=60)
    assert done.returncode == check, done.stderr
    return done.stdout


def data_of(size: int) -> bytes:
    """Data of which no two blocks are the same."""
    return b"".join(number.to_bytes(16, "big") for number in range(-(-size // 16)))[:size]


def make_tree(data: Path, tree: Path, *options: str) -> str:
    """The root hash of the tree that veritysetup makes in ``tree``."""
    salt = () if "--salt" in options else ("--salt", "5a" * 32)
    found = re.search(r"^Root hash:\s*(\w+)", veritysetup("format", data, tree, *salt, *options), re.MULTILINE)
    assert found
    return found[1]


def flip(file: Path, offset: int) -> None:
    """Change one byte."""
    with file.open("r+b") as stream:
        stream.seek(offset)
        (before,) = stream.read(1)
        stream.seek(offset)
        stream.write(bytes([before ^ 1]))
