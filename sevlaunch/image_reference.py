"""How an image is referred to: by its file, by a name of the catalogue, or by its URL and its SHA-256.

Where a fetched one is in the cache follows from that alone.
"""

from __future__ import annotations

import re

# A name of the catalogue. What ends as files of images do is one.
NAME = r"[a-z0-9][a-z0-9.+_-]{0,63}"
SHA256 = r"[0-9a-fA-F]{64}"
# Without a password, which would be in logs and on command lines.
URL = r"https?://[^/@\s]+/\S+"
FILE_ENDINGS = ("raw", "img", "iso", "qcow2", "vmdk", "vhdx", "vdi", "vhd")

_NAME = rf"(?!sha256-){NAME}"


def is_url(image: str) -> bool:
    """Whether it is a URL."""
    return re.fullmatch(URL, image) is not None


def is_name(image: str) -> bool:
    """Whether it is a name, and no file: ``./debian-13`` is a file, and so is ``debian.img``."""
    return re.fullmatch(_NAME, image) is not None and image.rpartition(".")[2] not in FILE_ENDINGS


def entry_of(image: str, sha256: str | None) -> str:
    """The entry of the cache: of an image whose SHA-256 is known by that, wherever it comes from; else by its name."""
    return f"sha256-{sha256.lower()}" if sha256 else image
