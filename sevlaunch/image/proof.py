"""What vouches for an image: a SHA-256 that was given, its publisher's file of checksums, or a signature."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from msgspec import Struct

from sevlaunch.errors import ImageError, UsageError
from sevlaunch.image.catalogue import file_name, find, mirrored, read_catalogue
from sevlaunch.image.checksums import Checksum, find_checksum, signed_text
from sevlaunch.image.signature import INSTALL_GPGV, Signed, check_signature, has_gpgv
from sevlaunch.image.web import STALL_LIMIT, Line, NotThere, is_private, read_text
from sevlaunch.image_reference import is_url


class FetchOptions(Struct, frozen=True):
    """Where an image is looked for, and what vouches for it.

    :param checksums: URL of the publisher's file of checksums, for an image that is named by its URL.
    :param signature: URL of that file's signature.
    :param keyrings: files with the keys that may sign; a signature is then required.
    :param catalogue: a file with entries of one's own.
    :param mirror: a web server that has the publishers' files below their hosts' names.
    :param renew: ask the publisher for a newer image, although there is one.
    :param stall_limit: seconds without a byte, after which a server counts as stalled.
    :param tries: how often a download that breaks off is taken up without getting on.
    :param first_wait: seconds before the first of these; each later one takes twice as long.
    """

    checksums: str = ""
    signature: str = ""
    keyrings: tuple[Path, ...] = ()
    catalogue: Path | None = None
    mirror: str = ""
    renew: bool = False
    stall_limit: float = STALL_LIMIT
    tries: int = 5
    first_wait: float = 1.0


class Source(Struct, frozen=True):
    """Where an image is, and what vouches for it.

    ``signature`` and ``checksums`` are URLs, or empty. ``keyrings``: those that are here; ``required``: they were
    given.
    """

    name: str
    url: str
    checksums: str
    signature: str
    signed: Literal["checksums", "inline", "image"]
    keyrings: tuple[Path, ...]
    required: bool
    user: str = ""
    boot: str = ""

    @property
    def is_signed(self) -> bool:
        """Whether there is a signature somewhere."""
        return bool(self.signature) or self.signed == "inline"

    @property
    def can_be_checked(self) -> bool:
        """Whether its signature can be checked here; it has to hold then."""
        return self.is_signed and bool(self.keyrings) and (self.required or has_gpgv())


class Proof(Struct, frozen=True):
    """What an image has to be, and who says so."""

    checksum: Checksum
    verified: Literal["checksum", "signature"]
    by: str


def find_source(image: str, options: FetchOptions) -> Source:
    """Where the image is that has this name in the catalogue, or this URL.

    :raise UsageError: when there is none, or the options don't fit it.
    """
    if "://" in image and not is_url(image):
        raise UsageError(f"wanted an http(s) URL without a password, found {image!r}")
    entry = None if is_url(image) else find(image, read_catalogue(options.catalogue))
    if entry and (options.checksums or options.signature):
        raise UsageError(
            f"the catalogue says what vouches for {image}", hint="leave --checksums and --signature out, or give a URL"
        )
    known = entry.keyrings if entry else ()
    source = Source(
        name=image,
        url=mirrored(entry.image if entry else image, options.mirror),
        checksums=_mirrored(entry.checksums_url if entry else options.checksums, options.mirror),
        signature=_mirrored(entry.signature_url if entry else options.signature, options.mirror),
        signed=entry.signed if entry else "checksums",
        keyrings=options.keyrings or tuple(path for name in known if (path := Path(name)).is_file()),
        required=bool(options.keyrings),
        user=entry.user if entry else "",
        boot=entry.boot if entry else "",
    )
    if options.keyrings and not source.is_signed:
        raise UsageError(f"no signature of {image} is known, for --keyring to check", hint="give --sha256 HEX instead")
    return source


def publishers_proof(source: Source, line: Line) -> Proof:
    """What the publisher's file of checksums says of the image, and whether that is signed.

    :raise ImageError: when it can't be had, says nothing of the image, or its signature does not hold.
    """
    content = read_text(source.checksums, line)
    signed: Signed | None = None
    if source.signed != "image" and source.can_be_checked:
        signature = _read_signature(source, line) if source.signed == "checksums" else None
        signed = check_signature(source.checksums, content, signature, source.keyrings)
        # Of a clearsigned file, what stands outside of the signed part is anybody's.
        content = signed.content if source.signed == "inline" else content
    text = content.decode("utf-8", "replace")
    name = file_name(source.url)
    try:
        about_it = file_name(source.checksums).startswith(name)
        checksum = find_checksum(signed_text(text) if signed is None else text, name, of_one_file=about_it)
    except ValueError as error:
        raise ImageError(f"{source.checksums}: {error}", hint="try another mirror") from error
    if checksum is None:
        raise ImageError(
            f"{source.checksums} has no SHA-256 or SHA-512 of {name}",
            hint="has its publisher moved it? name its URL, and give --sha256 HEX",
        )
    if signed:
        return Proof(checksum, "signature", f"key {signed.key}")
    if not (is_private(source.checksums) or (source.signed == "image" and source.can_be_checked)):
        raise ImageError(
            f"{source.checksums} comes unencrypted and unsigned: it vouches for nothing",
            hint="use an https mirror, name the publisher's key (--keyring FILE), or give --sha256 HEX",
        )
    return Proof(checksum, "checksum", source.checksums)


def signed_image(source: Source, line: Line, image: Path, proof: Proof) -> Proof:
    """The proof of an image that has come and fits its checksum, when its publisher signs the image itself.

    :raise ImageError: when the signature does not hold.
    """
    if source.signed != "image" or not source.can_be_checked:
        return proof
    signed = check_signature(source.url, image, _read_signature(source, line), source.keyrings)
    return Proof(proof.checksum, "signature", f"key {signed.key}")


def unsigned_reason(source: Source) -> str:
    """Why a checksum alone has to do, for people."""
    if not source.is_signed:
        return "its publisher signs nothing"
    return "its publisher's key is not here: --keyring FILE names it" if has_gpgv() else INSTALL_GPGV


def _mirrored(url: str, mirror: str) -> str:
    return mirrored(url, mirror) if url else ""


def _read_signature(source: Source, line: Line) -> bytes:
    try:
        return read_text(source.signature, line)
    except NotThere as error:
        raise ImageError(
            f"{source.name} is unsigned: {error.message}",
            hint="its publisher signs it: try another mirror, or give its SHA-256 (--sha256 HEX)",
        ) from error
