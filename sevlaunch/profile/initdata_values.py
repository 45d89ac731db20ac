"""Init-data: a document whose digest an SNP launch has as HOST_DATA. trustee's kbs/docs/initdata.md, version 0.1.0."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct

from sevlaunch.profile.named_files import read_named

VERSION = "0.1.0"
Algorithm = Literal["sha-256", "sha-384", "sha-512"]
ALGORITHMS: tuple[Algorithm, ...] = ("sha-256", "sha-384", "sha-512")
HOST_DATA_BYTES = 32
# What configures a guest is smaller; what is larger belongs on a disk.
MAX_BYTES = 1 << 20
# What the keys begin with whose values are SHA-256 of files: of those of the seed, and of others.
SEED, FILE = "seed/", "file/"


class InitDataDocument(Struct, frozen=True):
    """What a document says; ``digest`` is that of its bytes as they are, by the algorithm that it names."""

    algorithm: Algorithm
    data: dict[str, str]
    digest: bytes

    @property
    def host_data(self) -> bytes:
        """The digest as HOST_DATA, 32 bytes: without its end, or with zeros behind it."""
        return self.digest[:HOST_DATA_BYTES].ljust(HOST_DATA_BYTES, b"\0")


def read_initdata(value: object) -> bytes:
    """The init-data in a file.

    :raise ValueError: when it can't be read, or is none.
    """
    what = "the path of a file with init-data"
    if not isinstance(value, str) or not value:
        raise ValueError(f"wanted {what}, found {value!r}")
    content, path = read_named(value, MAX_BYTES + 1, what)
    try:
        parse_initdata(content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return content


def parse_initdata(content: bytes) -> InitDataDocument:
    """What init-data in TOML or JSON says.

    :raise ValueError: when it is none.
    """
    if len(content) > MAX_BYTES:
        raise ValueError(f"wanted init-data of at most {MAX_BYTES >> 20} MiB, found more")
    found = _document(content)
    if found.get("version") != VERSION:
        raise ValueError(f"wanted init-data of version {VERSION!r}, found version {found.get('version')!r}")
    said = found.get("algorithm")
    # Both spellings are in use.
    spellings = {name.replace("-", ""): name for name in ALGORITHMS}
    algorithm = spellings.get(said.replace("-", "")) if isinstance(said, str) else None
    if algorithm is None:
        raise ValueError(f"wanted an algorithm of {', '.join(ALGORITHMS)}, found {said!r}")
    data = found.get("data", {})
    if not isinstance(data, dict) or not all(isinstance(value, str) for value in data.values()):
        raise ValueError("wanted a section data whose values are texts")
    digest = hashlib.new(algorithm.replace("-", ""), content).digest()
    return InitDataDocument(algorithm, data, digest)


def bound(name: str, text: str) -> bool:
    """Whether a text of init-data is the SHA-256 of a file."""
    return name.startswith((SEED, FILE)) and re.fullmatch("[0-9a-f]{64}", text) is not None


def write_initdata(algorithm: str, data: Mapping[str, str]) -> bytes:
    """The document in TOML. The same data gives the same bytes, whatever their order."""
    lines = [f"version = {_quoted(VERSION)}", f"algorithm = {_quoted(algorithm)}", "", "[data]"]
    lines += [f"{_quoted(name)} = {_quoted(data[name])}" for name in sorted(data)]
    return ("\n".join(lines) + "\n").encode()


def _document(content: bytes) -> dict[str, Any]:
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise ValueError("wanted init-data in TOML or JSON, found what is no text in UTF-8") from error
    if text.lstrip().startswith("{"):
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"wanted init-data in TOML or JSON, found JSON with a mistake: {error}") from error
        # A list of JSON does not begin so.
        return dict(found)
    # Few guests have any.
    import tomllib

    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"wanted init-data in TOML or JSON: {error}") from error


def _quoted(text: str) -> str:
    # TOML's basic strings are JSON's, but that they have no DEL.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
