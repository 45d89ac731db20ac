"""A read-only disk that is made of a folder at each start, for guests that can't share one."""

from __future__ import annotations

import re
from pathlib import Path

from msgspec import Struct

from sevlaunch.plan.context import Context
from sevlaunch.plan.needs import NeededFile, Needs
from sevlaunch.plan.option import Choice
from sevlaunch.profile.model import Disk

# ECMA-119, 8.4.7: the field of a volume's identifier.
_MOST_LABEL = 32


class FolderDiskPlan(Struct, frozen=True, kw_only=True):
    """The disk of the folder ``source``.

    QEMU is handed it open as ``descriptor``: it has no name, and is gone with QEMU. ``label``: of the file system in
    it. ``place``: the folder on whose file system it is.
    """

    source: Choice[str]
    label: Choice[str]
    descriptor: int
    place: str
    remedy: str

    @property
    def needs(self) -> Needs:
        """The folder, which the launcher reads."""
        return Needs(
            files=(NeededFile(self.source.value, "folder of a disk", self.remedy, folder=True, by_launcher=True),)
        )


def resolve_folder_disk(context: Context, index: int, disk: Disk) -> FolderDiskPlan | None:
    """The disk of a folder, the ``index``-th of the guest; None: its content is an image."""
    if disk.folder is None:
        return None
    path = ("disks", index)
    named = re.sub(r"[^A-Za-z0-9_-]", "_", Path(disk.folder).name)[:_MOST_LABEL] or f"disk{index}"
    return FolderDiskPlan(
        source=context.choice(disk.folder, *path, "folder"),
        label=context.choice(disk.label or named, *path, "label", default="the folder's name"),
        descriptor=next(context.descriptors),
        place=context.host.folders.state,
        remedy=context.correct("disks"),
    )
