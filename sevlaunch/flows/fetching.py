"""Fetching images from a program with an event loop, which goes on meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TypeVar

from sevlaunch.flows import images
from sevlaunch.image import fetch
from sevlaunch.image.download import Reports
from sevlaunch.image.fetch import Fetched
from sevlaunch.image.proof import FetchOptions
from sevlaunch.image.web import Cancelled, Line
from sevlaunch.profile.loader import LoadedProfile

T = TypeVar("T")


async def fetch_image(
    image: str,
    sha256: str = "",
    *,
    options: FetchOptions = FetchOptions(),  # noqa: B008 - it can't be changed
    reports: Reports = Reports(),  # noqa: B008
    folder: Path | None = None,
) -> Fetched:
    """The image, from the cache or else from the web, verified. What has come before a cancellation is kept.

    :param image: a name of the catalogue, or a URL.
    :param sha256: what it has to be, in hexadecimal; it is then kept by that, and not by its name.
    :param reports: called in another thread.
    :param folder: the cache instead of the user's own.
    :raise ImageError: when it can't be had, or is not what it has to be.
    :raise UsageError: when nothing can vouch for it, or there is none of that name.
    :raise HostError: when the cache can't be written, or is another user's.
    """

    def work(line: Line) -> Fetched:
        return fetch.fetch_image(image, sha256, options=options, reports=reports, line=line, folder=folder)

    return await _in_thread(work, Line(options.stall_limit))


async def fetch_missing(
    profiles: Sequence[LoadedProfile],
    *,
    offline: bool = False,
    reports: Reports = Reports(),  # noqa: B008 - it can't be changed
) -> list[Fetched]:
    """Fetch the images that ``profiles`` name by name or URL, and that the cache does not have.

    :param offline: fetch none: refuse.
    :param reports: called in another thread.
    :return: what was fetched.
    :raise HostError: when images are missing and may not be fetched; ``problems`` has the command for each.
    :raise ImageError: when one can't be had, or is not what it has to be.
    :raise ProfileError: when a name is in no catalogue.
    """

    def work(line: Line) -> list[Fetched]:
        return images.fetch_missing(profiles, offline=offline, showing=lambda _: nullcontext(reports), line=line)

    return await _in_thread(work, Line())


async def _in_thread(work: Callable[[Line], T], line: Line) -> T:
    """What ``work`` gives in a thread of its own; a cancellation ends its connections, and waits for its end."""
    done = asyncio.ensure_future(asyncio.to_thread(work, line))
    try:
        return await asyncio.shield(done)
    except asyncio.CancelledError:
        line.cancel()
        with suppress(Cancelled, Exception):
            await done
        raise
