"""The guests that there are, and how each is."""

from __future__ import annotations

import asyncio
from pathlib import Path

from sevlaunch.evidence import Status
from sevlaunch.guest.commands import status
from sevlaunch.guest.folder import find, guests
from sevlaunch.host.folders import runtime_folder


async def list_guests(root: Path | None = None) -> list[Status]:
    """The status of each guest, by name.

    :param root: the folder of all guests; default: the user's runtime folder.
    """
    return await asyncio.gather(*(status(folder) for folder in guests(root or runtime_folder())))


async def guest_status(name: str, root: Path | None = None) -> Status:
    """The status of one guest.

    :raise GuestNotFound: when there is none of that name.
    """
    return await status(find(root or runtime_folder(), name))
