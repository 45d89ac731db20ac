"""How a download gets on, and what came of it, for people."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sevlaunch.cli.failures import note
from sevlaunch.cli.output import ProgressLine
from sevlaunch.units import mebibytes

if TYPE_CHECKING:
    from sevlaunch.image.download import Reports
    from sevlaunch.image.fetch import Fetched
    from sevlaunch.profile.loader import LoadedProfile


@contextmanager
def shown(image: str) -> Iterator[Reports]:
    """A line on a terminal that tells how the download of ``image`` gets on, and a note on what goes wrong with it."""
    from sevlaunch.image.download import Reports

    line = ProgressLine()
    began: tuple[float, int] | None = None

    def progress(done: int, total: int) -> None:
        nonlocal began
        now = time.monotonic()
        began = began or (now, done)
        seconds, came = now - began[0], done - began[1]
        # The first moment tells nothing.
        speed = f", {came / seconds / (1 << 20):.1f} MiB/s" if seconds > 1 else ""
        line.show(f"{image}: {done * 100 // total} % of {mebibytes(total)}{speed}")

    def told(text: str) -> None:
        nonlocal began
        began = None
        line.clear()
        note(f"sevlaunch: {text}")

    try:
        yield Reports(progress, told)
    finally:
        line.clear()


@contextmanager
def _shown_for_a_guest(image: str) -> Iterator[Reports]:
    """The same for an image that a guest waits for, which nobody asked for by itself."""
    note(f"sevlaunch: fetching {image}, which is not here yet")
    with shown(image) as reports:
        yield reports


def fetch_for_guests(profiles: Sequence[LoadedProfile], *, offline: bool) -> None:
    """Fetch the images that ``profiles`` name and the cache does not have, and say so.

    :raise SevlaunchError: as :func:`sevlaunch.flows.images.fetch_missing`.
    """
    from sevlaunch.flows.images import fetch_missing

    for fetched in fetch_missing(profiles, offline=offline, showing=_shown_for_a_guest):
        note(f"sevlaunch: {sentence(fetched.record.name, fetched)}")


def sentence(image: str, fetched: Fetched) -> str:
    """What came of a download."""
    record = fetched.record
    how = "its publisher's signature" if record.verified == "signature" else "a checksum alone"
    what = f"fetched, {mebibytes(record.size)}" if fetched.new else f"is there, since {record.fetched}"
    return f"{image}: {what}, verified by {how} ({record.by})"
