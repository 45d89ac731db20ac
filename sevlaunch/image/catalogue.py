"""The catalogue: where distributions publish their images, what vouches for these, and who logs in there."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urljoin, urlsplit

import msgspec
from msgspec import Meta, Struct

from sevlaunch.documents import matching
from sevlaunch.errors import UsageError
from sevlaunch.files import read_bounded
from sevlaunch.image_reference import URL, is_name

# A file with entries of one's own, which go before those of sevlaunch.
CATALOGUE_VARIABLE = "SEVLAUNCH_IMAGE_CATALOGUE"
# A web server that has the publishers' files below their hosts' names.
MIRROR_VARIABLE = "SEVLAUNCH_IMAGE_MIRROR"
# What its publisher gives to registered users alone.
NOT_PUBLISHED = {
    "sles": "SUSE gives SLES's images to registered users alone: take Minimal-VM ... Cloud.qcow2 from "
    "https://www.suse.com/download/sles/, and name the file",
    "rhel": "Red Hat gives RHEL's images to registered users alone: take the KVM guest image from "
    "https://access.redhat.com/downloads/, and name the file",
}
_MAX_BYTES = 1 << 20
_Text = Annotated[str, Meta(min_length=1, max_length=1000)]
_Url = Annotated[str, matching(URL)]


class Entry(Struct, frozen=True, forbid_unknown_fields=True):
    """One image; catalogue.toml says what each key means."""

    title: _Text
    image: _Url
    checksums: _Text
    user: _Text
    signature: str = ""
    signed: Literal["checksums", "inline", "image"] = "checksums"
    keyrings: tuple[str, ...] = ()
    architecture: Literal["x86_64"] = "x86_64"
    boot: str = ""

    @property
    def checksums_url(self) -> str:
        """Where the publisher's file of checksums is."""
        return self._beside(self.checksums)

    @property
    def signature_url(self) -> str:
        """Where the signature is; empty where there is none, or it stands in the file of checksums."""
        return self._beside(self.signature) if self.signature else ""

    @property
    def is_signed(self) -> bool:
        """Whether the publisher signs it, in whichever way."""
        return bool(self.signature) or self.signed == "inline"

    def _beside(self, name: str) -> str:
        return urljoin(self.image, name.replace("{image}", file_name(self.image)))


def file_name(url: str) -> str:
    """The name of the file that a URL stands for."""
    return urlsplit(url).path.rpartition("/")[2]


def read_catalogue(own: Path | None = None) -> dict[str, Entry]:
    """Sevlaunch's catalogue, with the entries of ``own``, or of the file that the environment names, in front.

    :raise UsageError: when that can't be read, or is no catalogue.
    """
    shipped = resources.files("sevlaunch.image").joinpath("catalogue.toml").read_bytes()
    named = os.environ.get(CATALOGUE_VARIABLE)
    file = own or (Path(named) if named else None)
    entries = _parse(shipped)
    if file is None:
        return entries
    try:
        first = _parse(read_bounded(file, "catalogue", _MAX_BYTES))
    except ValueError as error:
        raise UsageError(f"{file} is no catalogue of images: {error}", hint="see docs/images.md for one") from error
    return first | {name: entry for name, entry in entries.items() if name not in first}


def _parse(content: bytes) -> dict[str, Entry]:
    """:raise ValueError: when it is none."""
    entries: dict[str, Entry] = msgspec.toml.decode(content, type=dict[str, Entry])
    for name in entries:
        if not is_name(name):
            raise ValueError(f"wanted a name of lower-case letters, digits and . + _ -, and no file's, found {name!r}")
    return entries


def find(name: str, entries: Mapping[str, Entry]) -> Entry:
    """The entry ``name``.

    :raise UsageError: when there is none.
    """
    if name not in entries:
        message, hint = unknown(name, entries)
        raise UsageError(message, hint=hint)
    return entries[name]


def unknown(name: str, entries: Mapping[str, Entry]) -> tuple[str, str]:
    """What to say of a name that is in no catalogue, and the hint."""
    for start, instead in NOT_PUBLISHED.items():
        if name.startswith(start):
            return f"no image {name!r} in the catalogue", instead
    close = difflib.get_close_matches(name, entries, n=1)
    meant = f"; did you mean {close[0]!r}?" if close else ""
    return f"no image {name!r} in the catalogue{meant}", "sevlaunch image ls --known lists them; a file is ./NAME"


def mirrored(url: str, mirror: str = "") -> str:
    """``url`` as ``mirror`` has it, or the mirror that the environment names; without either as it is.

    :raise UsageError: when that is no web server.
    """
    mirror = mirror or os.environ.get(MIRROR_VARIABLE, "")
    if not mirror:
        return url
    if urlsplit(mirror).scheme not in ("http", "https"):
        raise UsageError(
            f"wanted an https URL as the mirror, found {mirror!r}", hint="such as https://mirror.lan/images"
        )
    parts = urlsplit(url)
    return f"{mirror.rstrip('/')}/{parts.netloc}{parts.path}" + (f"?{parts.query}" if parts.query else "")
