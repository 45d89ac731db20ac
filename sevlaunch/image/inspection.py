"""What a fetched image must not be: one that needs other files of the host, or whose header lies."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from sevlaunch.errors import ImageError
from sevlaunch.host.images import image_format
from sevlaunch.opening import open_regular
from sevlaunch.qcow2 import Header

_HEAD, _TAIL = 512, 512
_FORMATS = ("raw", "qcow2")


class Inspected(NamedTuple):
    """An image's format, as QEMU's block driver is called, and the bytes of the disk in it."""

    format: str
    virtual_size: int


def inspect(image: Path, what: str) -> Inspected:
    """Look at an image that somebody else made.

    :param what: what it is, for messages.
    :raise ImageError: when QEMU would open another file because of it, or it is none.
    """
    with open_regular(image) as stream:
        head = stream.read(_HEAD)
        size = stream.seek(0, 2)
        stream.seek(max(0, size - _TAIL))
        found = image_format(head, stream.read(_TAIL))
    if found not in _FORMATS:
        raise ImageError(
            f"{what} is a {found} image: wanted {' or '.join(_FORMATS)}",
            hint=f"convert it: qemu-img convert -O qcow2 FILE NEW.qcow2, after a look at what {found} images can name",
        )
    if found == "raw":
        if b"<html" in head.lower() or b"<!doctype" in head.lower():
            raise ImageError(f"{what} is a web page, and no image", hint="is the URL that of the file itself?")
        return Inspected("raw", size)
    try:
        header = Header.read(head)
        header.check(size)
    except ValueError as error:
        raise ImageError(f"{what}: {error}", hint="fetch another one; this one is not used") from error
    return Inspected("qcow2", header.virtual_size)
