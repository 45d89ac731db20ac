"""The images that profiles boot from by name or URL: which are missing, and fetching those."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from msgspec import Struct

from sevlaunch.errors import HostError, ImageError, Problem, ProfileError
from sevlaunch.image_reference import is_url
from sevlaunch.profile.loader import LoadedProfile
from sevlaunch.remedies import fetching

if TYPE_CHECKING:
    from sevlaunch.image.download import Reports
    from sevlaunch.image.fetch import Fetched
    from sevlaunch.image.web import Line


class MissingImage(Struct, frozen=True):
    """An image that a profile names at ``location``, and that the cache does not have."""

    image: str
    sha256: str | None
    location: str
    path: str

    def problem(self, message: str, hint: str) -> Problem:
        """What is wrong with it, where the profile names it."""
        return Problem(message, location=self.location, path=self.path, hint=hint)


def missing_images(profiles: Sequence[LoadedProfile]) -> list[MissingImage]:
    """The images that ``profiles`` name by name or URL and the cache does not have, each once.

    :raise UnsafeFile: when the cache is not this user's alone.
    """
    found: dict[str, MissingImage] = {}
    for entry, named in _fetched(profiles):
        # Most profiles name files alone.
        from sevlaunch.image.store import find_image

        if entry not in found and not ((kept := find_image(entry)) and kept.record):
            found[entry] = named
    return list(found.values())


def unknown_images(loaded: LoadedProfile) -> list[Problem]:
    """The names of images in a profile that are in no catalogue.

    :raise UsageError: when the catalogue of the user's own can't be read.
    """
    return _unknown([named for _, named in _fetched([loaded])])


def fetch_missing(
    profiles: Sequence[LoadedProfile],
    *,
    offline: bool = False,
    showing: Callable[[str], AbstractContextManager[Reports]] | None = None,
    line: Line | None = None,
) -> list[Fetched]:
    """Fetch the images that ``profiles`` name by name or URL and the cache does not have.

    :param offline: fetch none: refuse.
    :param showing: for the block of each download: whom that tells how it gets on.
    :param line: the connections, for another thread to end.
    :return: what was fetched.
    :raise HostError: when images are missing and may not be fetched; ``problems`` has the command for each.
    :raise ImageError: when one can't be had, or is not what it has to be.
    :raise ProfileError: when a name is in no catalogue.
    """
    missing = missing_images(profiles)
    if not missing:
        return []
    if problems := _unknown(missing):
        raise ProfileError("an image is in no catalogue", problems=problems)
    if offline:
        problems = [one.problem(f"{one.image} is not fetched yet", fetching(one.image, one.sha256)) for one in missing]
        raise HostError("images are missing, and --offline fetches none", problems=problems)
    from sevlaunch.image.download import Reports
    from sevlaunch.image.fetch import fetch_image

    fetched = []
    for one in missing:
        with showing(one.image) if showing else nullcontext(Reports()) as reports:
            fetched.append(fetch_image(one.image, one.sha256 or "", reports=reports, line=line))
    return fetched


def check_unused(entry: str) -> None:
    """See that no guest has a disk that is kept and stands on an image of the cache.

    :raise ImageError: when one has.
    """
    from sevlaunch.guest.overlay_notes import guests_above
    from sevlaunch.host.folders import image_file, state_folder

    above = guests_above(image_file(entry), state_folder())
    if above:
        raise ImageError(
            f"disks of {', '.join(above)} stand on {entry}, and are lost without it",
            hint=f"remove them first: sevlaunch rm {shlex.join(above)}; or say --force",
        )


def _fetched(profiles: Sequence[LoadedProfile]) -> Iterator[tuple[str, MissingImage]]:
    """Entry in the cache, and where it is named, of each image that is fetched."""
    for loaded in profiles:
        for index, disk in enumerate(loaded.profile.disks):
            if disk.image and disk.is_fetched:
                location = str(loaded.positions.nearest(("disks", index, "image")))
                yield disk.source, MissingImage(disk.image, disk.sha256, location, f"disks.{index}.image")


def _unknown(named: Sequence[MissingImage]) -> list[Problem]:
    names = [one for one in named if not is_url(one.image)]
    if not names:
        return []
    from sevlaunch.image.catalogue import read_catalogue, unknown

    entries = read_catalogue()
    return [one.problem(*unknown(one.image, entries)) for one in names if one.image not in entries]
