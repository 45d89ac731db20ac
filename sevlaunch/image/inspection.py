"""What an image that somebody else made must not be: one that needs other files of the host, or whose header lies."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from sevlaunch.errors import ImageError
from sevlaunch.host.facts import ImageFacts
from sevlaunch.host.images import image_facts
from sevlaunch.opening import open_regular
from sevlaunch.profile.model import BASE_FORMATS
from sevlaunch.remedies import FLATTEN
from sevlaunch.units import format_size

_HEAD = 512


class Unfit(Struct, frozen=True):
    """Why an image can't be one that is never written, by which ``key`` of the disk, and what to do."""

    key: str
    message: str
    hint: str


def unfit(path: str, facts: ImageFacts, size: int | None) -> Unfit | None:
    """What keeps the image at ``path`` from being one that is never written, on a disk of ``size`` bytes; or None."""
    if facts.block_device:
        message = f"{path} is a block device, of which nobody can tell whether it is still the same"
        return Unfit("image", message, "use path, or an image file")
    if facts.luks and facts.format == "qcow2":
        message = f"{path} is encrypted (LUKS in qcow2), and an overlay would hold in the clear what is written"
        return Unfit("image", message, "use path with luks_key")
    if facts.format not in BASE_FORMATS:
        message = f"{path} is a {facts.format} image; one that is never written is {' or '.join(BASE_FORMATS)}"
        return Unfit("image", message, FLATTEN.format(path))
    if facts.leans_on:
        message = f"{path} needs {facts.leans_on}, and no file is opened because an image says so"
        return Unfit(
            "image", message, f"look at what it names (qemu-img info); if that is yours, {FLATTEN.format(path)}"
        )
    if facts.damage:
        return Unfit("image", f"{path} is damaged, or made to mislead: {facts.damage}", "get it again")
    if not facts.virtual_size:
        return Unfit("image", f"{path} has no content", "get it again")
    if size is not None and size < facts.virtual_size:
        has = format_size(facts.virtual_size)
        return Unfit("size", f"{path} has {has}, and the disk would have {format_size(size)}", "leave size out")
    return None


def inspect(image: Path, what: str) -> ImageFacts:
    """The facts of an image that was fetched.

    :param what: what it is, for messages.
    :raise ImageError: when it can't be one that is never written.
    """
    facts = image_facts(str(image))
    if facts is None:
        raise ImageError(f"{what}: {image} can't be looked at", hint="who removes files there?")
    if found := unfit(what, facts, None):
        raise ImageError(found.message, hint=found.hint)
    with open_regular(image) as stream:
        head = stream.read(_HEAD).lstrip().lower()
    if facts.format == "raw" and head.startswith((b"<!doctype", b"<html")):
        raise ImageError(f"{what} is a web page, and no image", hint="is the URL that of the file itself?")
    return facts
