"""Changes of files: of bytes, of text, and of documents."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from random import Random
from typing import Any

# What a terminal acts on, ends of lines, and lies.
EVIL = "\x1b[2K\r\x1b[1A\u202e\x9b8m\nguest: verified\x00\x7f\u2028"
WORDS = [
    EVIL,
    "",
    "0",
    "-1",
    "1e999",
    "NaN",
    "٣",
    "0x",
    "A" * 3000,
    "../../etc/passwd",
    "/dev/zero",
    "/proc/self/mem",
    "%s%n",
    "${HOME}",
    "a,b=c",
    "true",
    "null",
    "\ud800",
    "\U0001fbf0",
    "x" * 70,
]
VALUES: list[Any] = [None, True, -1, 0, 1 << 32, 1 << 64, 10**400, 1.5, [], {}, [[[]]], *WORDS]
Change = Callable[[bytes, Random], bytes]


def change_bytes(content: bytes, random: Random) -> bytes:
    """A few changes of single places: bits, lost, doubled and foreign pieces, numbers at their limits."""
    changed = bytearray(content)
    for _ in range(random.choice((1, 1, 1, 2, 5))):
        at = random.randrange(len(changed) + 1)
        length = random.choice((1, 2, 4, 16, 300))
        match random.randrange(6):
            case 0 if changed:
                changed[at % len(changed)] ^= 1 << random.randrange(8)
            case 1:
                del changed[at : at + length]
            case 2:
                changed[at:at] = changed[at : at + length]
            case 3:
                changed[at:at] = random.randbytes(length)
            case 4:
                number = random.choice((0, 1, 0x7F, 0xFF, 0x80, 0xFFFFFFFF, 0x7FFFFFFF))
                changed[at : at + 4] = number.to_bytes(4, random.choice(("little", "big")))
            case _:
                del changed[at:]
    return bytes(changed)


def change_text(content: bytes, random: Random) -> bytes:
    """A few changes of lines and words, or of bytes."""
    if random.random() < 0.2:
        return change_bytes(content, random)
    lines = content.decode(errors="replace").split("\n")
    for _ in range(random.choice((1, 1, 2, 4))):
        at = random.randrange(len(lines))
        match random.randrange(5):
            case 0:
                del lines[at : at + random.choice((1, 1, 5))]
            case 1:
                lines.insert(at, random.choice(lines) if lines else "x")
            case 2:
                lines.insert(at, random.choice(WORDS))
            case _ if lines:
                at %= len(lines)
                lines[at] = _change_line(lines[at], random)
        lines = lines or [""]
    return "\n".join(lines).encode(errors="surrogatepass")


def _change_line(line: str, random: Random) -> str:
    words = line.replace("'", " ' ").replace(":", " : ").split(" ")
    at = random.randrange(len(words))
    match random.randrange(4):
        case 0:
            words[at] = random.choice(WORDS)
        case 1:
            del words[at]
        case 2:
            words.insert(at, random.choice(words))
        case _:
            words[at] = f"{words[at]}{random.choice(WORDS)}"
    return " ".join(words)


def change_json(content: bytes, random: Random) -> bytes:
    """Values that are exchanged, lost, or where none were; or changes of the text."""
    if random.random() < 0.2:
        return change_bytes(content, random)
    document = json.loads(content)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        _change_document(document, random)
    text = json.dumps(document, ensure_ascii=random.random() < 0.5)
    return text.encode(errors="surrogatepass")


def _change_document(document: Any, random: Random) -> None:
    places = list(_places(document))
    if not places:
        return
    container, key = random.choice(places)
    match random.randrange(5):
        case 0:
            del container[key]
        case 1 if isinstance(container, dict):
            container[random.choice(WORDS)] = deepcopy(random.choice(VALUES))
        case 2 if isinstance(container[key], str) and container[key]:
            text = container[key]
            at = random.randrange(len(text))
            container[key] = text[:at] + random.choice(WORDS) + text[at + random.randrange(3) :]
        case 3 if isinstance(container[key], list):
            container[key] = container[key] * random.choice((2, 500))
        case _:
            container[key] = deepcopy(random.choice(VALUES))


def _places(document: Any) -> list[tuple[Any, Any]]:
    keys = document if isinstance(document, dict) else range(len(document)) if isinstance(document, list) else ()
    here = [(document, key) for key in keys]
    return here + [place for container, key in here for place in _places(container[key])]
