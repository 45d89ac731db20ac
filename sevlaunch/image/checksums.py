"""What publishers write into their files of checksums: as sha256sum and sha512sum do, or in BSD's style."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

Algorithm = Literal["sha256", "sha512"]

_DIGITS: dict[int, Algorithm] = {64: "sha256", 128: "sha512"}
# coreutils: the digest, a space, " " or "*" (binary), the name; a "\" in front of all says that the name is escaped.
_GNU = re.compile(r"([0-9a-fA-F]{64}|[0-9a-fA-F]{128})(?: [ *]?|\t)(\S.*)")
_BSD = re.compile(r"(SHA256|SHA512) ?\((.+)\) ?= ?([0-9a-fA-F]+)")
# Fedora and CentOS say a file's size above its digest.
_SIZE = re.compile(r"# (.+): ([0-9]{1,15}) bytes")
_ALONE = re.compile(r"[0-9a-fA-F]{64}|[0-9a-fA-F]{128}")
_CLEARSIGNED = "-----BEGIN PGP SIGNED MESSAGE-----"
_SIGNATURE = "-----BEGIN PGP SIGNATURE-----"


class Checksum(NamedTuple):
    """What a file has to be: its digest in lower-case hexadecimal, and its size in bytes where that was said."""

    algorithm: Algorithm
    digest: str
    size: int | None = None

    @property
    def text(self) -> str:
        """It in one word."""
        return f"{self.algorithm}:{self.digest}"


def parse_digest(text: str) -> Checksum:
    """The checksum that a SHA-256 in hexadecimal is.

    :raise ValueError: when it is none.
    """
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise ValueError(f"wanted a SHA-256, 64 hexadecimal digits, found {text!r}")
    return Checksum("sha256", text.lower())


def signed_text(text: str) -> str:
    """What a clearsigned text has between its headers and its signature (RFC 9580, 7); another text as it is."""
    start = text.find(_CLEARSIGNED)
    if start < 0:
        return text
    body = text[start:].partition(_SIGNATURE)[0].replace("\r\n", "\n").partition("\n\n")[2]
    return "\n".join(line.removeprefix("- ") for line in body.splitlines())


def find_checksum(text: str, name: str, *, of_one_file: bool = False) -> Checksum | None:
    """The checksum of the file ``name``, the strongest that is there; None where there is none.

    :param of_one_file: the text is about this file alone: if it has one digest, then that, whatever name it says.
        Publishers keep ``latest`` files, whose checksums say the name of the release.
    :raise ValueError: when two digests of one kind disagree.
    """
    found: dict[tuple[str, Algorithm], str] = {}
    sizes: dict[str, int] = {}
    for raw in text.splitlines():
        line = raw.strip()
        if size := _SIZE.fullmatch(line):
            sizes[size[1]] = int(size[2])
            continue
        entry = _entry(line)
        if entry is None:
            continue
        file, algorithm, digest = entry
        if found.setdefault((file, algorithm), digest) != digest:
            raise ValueError(f"it has two checksums of {file}")
    names = {file for file, _ in found}
    if name not in names and of_one_file and len(names) == 1:
        [name] = names
    for algorithm in reversed(_DIGITS.values()):
        if wanted := found.get((name, algorithm)):
            return Checksum(algorithm, wanted, sizes.get(name))
    return None


def _entry(line: str) -> tuple[str, Algorithm, str] | None:
    """File, algorithm and digest of a line, or None."""
    if match := _BSD.fullmatch(line):
        digest = match[3].lower()
        of_length = _DIGITS.get(len(digest))
        return (_base(match[2]), of_length, digest) if of_length and of_length == match[1].lower() else None
    if match := _GNU.fullmatch(line):
        return _base(match[2]), _DIGITS[len(match[1])], match[1].lower()
    if _ALONE.fullmatch(line):
        return "", _DIGITS[len(line)], line.lower()
    return None


def _base(name: str) -> str:
    return name.rpartition("/")[2]
