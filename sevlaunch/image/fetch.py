"""Fetching an image: what it has to be, the download, the proof, and its place in the cache."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct

from sevlaunch.errors import ImageError, UsageError
from sevlaunch.host.folders import image_file
from sevlaunch.image.catalogue import file_name
from sevlaunch.image.checksums import parse_digest
from sevlaunch.image.download import Reports, download, forget
from sevlaunch.image.inspection import inspect
from sevlaunch.image.proof import FetchOptions, Proof, Source, find_source, publishers_proof, signed_image
from sevlaunch.image.store import PARTIAL, Record, find_image, locked, put
from sevlaunch.image.web import Line
from sevlaunch.image_reference import entry_of, is_url

_PIECE = 1 << 20


class Fetched(Struct, frozen=True):
    """An image in the cache; ``new``: it was fetched now. ``entry``: its name there."""

    entry: str
    path: Path
    record: Record
    new: bool


def fetch_image(
    image: str,
    sha256: str = "",
    *,
    options: FetchOptions = FetchOptions(),  # noqa: B008 - it can't be changed
    reports: Reports = Reports(),  # noqa: B008
    line: Line | None = None,
    folder: Path | None = None,
) -> Fetched:
    """The image, from the cache or else from the web, verified.

    :param image: a name of the catalogue, or a URL.
    :param sha256: what it has to be, in hexadecimal; it is then kept by that, and not by its name.
    :param line: the connections, for another thread to end.
    :param folder: the cache instead of the user's own.
    :raise ImageError: when it can't be had, or is not what it has to be.
    :raise UsageError: when nothing can vouch for it, or there is none of that name.
    :raise HostError: when the cache can't be written, or is another user's.
    """
    line = line or Line(options.stall_limit)
    if sha256 and options.keyrings:
        raise UsageError("--sha256 proves an image by itself", hint="leave --keyring out, or --sha256")
    source = find_source(image, options)
    proof = _given(sha256) or _of_url(source, line)
    entry = image_file(entry_of(image, proof.checksum.digest if proof else None), folder).parent
    if (there := _there(entry)) and not options.renew:
        return there
    with locked(entry, line, lambda: reports.told(f"{image} is being fetched by another process: waiting for it")):
        if (there := _there(entry)) and not options.renew:
            return there
        proof = proof or publishers_proof(source, line)
        if there and there.record.checksum == proof.checksum.text:
            return there
        put(entry, _bring(source, entry, proof, line, options, reports))
    there = _there(entry)
    if there is None:
        raise ImageError(f"{image} was fetched, and is gone again from {entry}", hint="who removes files there?")
    return Fetched(there.entry, there.path, there.record, new=True)


def _given(sha256: str) -> Proof | None:
    if not sha256:
        return None
    try:
        return Proof(parse_digest(sha256), "checksum", "the SHA-256 that was given")
    except ValueError as error:
        raise UsageError(str(error), hint="sha256sum FILE prints it") from error


def _of_url(source: Source, line: Line) -> Proof | None:
    """For an image that is named by its URL, and is kept by what it is: what its publisher says."""
    if not is_url(source.name):
        return None
    if not source.checksums:
        raise UsageError(
            f"nothing vouches for {source.name}",
            hint="give its SHA-256: --sha256 HEX; or its publisher's file of checksums: --checksums URL",
        )
    proof = publishers_proof(source, line)
    if proof.checksum.algorithm != "sha256":
        raise UsageError(
            f"{source.checksums} has no SHA-256 of {file_name(source.url)}, by which an image of a URL is kept",
            hint="give its SHA-256: --sha256 HEX; or write a catalogue with a name for it: docs/images.md",
        )
    return proof


def _there(entry: Path) -> Fetched | None:
    found = find_image(entry.name, entry.parent)
    return Fetched(found.entry, found.path, found.record, new=False) if found and found.record else None


def _bring(source: Source, entry: Path, proof: Proof, line: Line, options: FetchOptions, reports: Reports) -> Record:
    """The record of the image, which is then in the folder's ``partial``, and is what it has to be."""
    partial, wanted, anew = entry / PARTIAL, proof.checksum, False
    while True:
        taken_up = download(source.url, entry, line, options, size=wanted.size, reports=reports)
        found = _digests(partial, line)
        if found[wanted.algorithm] == wanted.digest:
            break
        forget(entry)
        if not taken_up or anew:
            raise ImageError(
                f"{source.url} has other bytes than {proof.by} says: wanted {wanted.text}, found "
                f"{wanted.algorithm}:{found[wanted.algorithm]}",
                hint="was it replaced a moment ago? try again, or another mirror; else somebody changed it",
            )
        anew = True
        reports.told(f"{source.url}: what had come before is of another file: fetching it anew")
    try:
        proof = signed_image(source, line, partial, proof)
        image = inspect(partial, source.url)
    except ImageError:
        forget(entry)
        raise
    status = partial.stat()
    return Record(
        name=source.name,
        source=source.url,
        sha256=found["sha256"],
        checksum=wanted.text,
        size=status.st_size,
        modified=status.st_mtime_ns,
        format=image.format,
        virtual_size=image.virtual_size or status.st_size,
        verified=proof.verified,
        by=proof.by,
        fetched=datetime.now(UTC).isoformat(timespec="seconds"),
        user=source.user,
        boot=source.boot,
    )


def _digests(file: Path, line: Line) -> dict[str, str]:
    digests = {name: hashlib.new(name) for name in ("sha256", "sha512")}
    with file.open("rb", buffering=0) as stream:
        while piece := stream.read(_PIECE):
            line.check()
            for digest in digests.values():
                digest.update(piece)
    return {name: digest.hexdigest() for name, digest in digests.items()}
