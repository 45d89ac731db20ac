"""What takes the writes to a disk whose own image is never written: a qcow2 image on top of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from msgspec import Struct

from sevlaunch.image.inspection import unfit
from sevlaunch.plan.context import Context
from sevlaunch.plan.handed import handed_name, handing
from sevlaunch.plan.needs import NeededProgram, Needs
from sevlaunch.plan.option import Choice, Option, Parameter, rule
from sevlaunch.profile.model import Disk
from sevlaunch.remedies import INSTALL_QEMU_IMG

# QEMU's include/block/block.h, BDRV_SECTOR_SIZE: it rounds the size of an image up to whole ones.
SECTOR = 512


class OverlayPlan(Struct, frozen=True, kw_only=True):
    """What takes the writes to the disk ``name``.

    ``file``: where it lies, and is kept between runs. None: it has no name, and is gone with QEMU, which is handed it
    open as the descriptor ``descriptor``. ``folder``: the file system that it is on. ``size``: bytes that the disk has;
    None: those of an image that nobody has looked at.
    """

    name: str
    kept: Choice[bool]
    file: str | None
    folder: str
    descriptor: int
    size: Choice[int] | None
    qemu_img: NeededProgram

    @property
    def needs(self) -> Needs:
        """The program that makes it. It lies in a folder of sevlaunch's."""
        return Needs(programs=(self.qemu_img,))

    def handing(self) -> Iterator[Option]:
        """How QEMU takes over what has no name."""
        if self.file is None:
            yield handing(self.descriptor, self.kept.reason)

    def filename(self) -> Parameter:
        """What QEMU opens."""
        return Parameter("file.filename", self.file or handed_name(self.descriptor), self.kept.reason)


def resolve_overlay(context: Context, index: int, disk: Disk) -> OverlayPlan | None:
    """The overlay of a disk, the ``index``-th of the guest; None where the guest writes to the disk's own image."""
    _check_image(context, index, disk)
    if disk.writes_overlay is None:
        return None
    path, name, kept = ("disks", index), f"disk{index}", disk.writes_overlay == "keep"
    default = "the image is not written: what the guest writes is kept beside it"
    folder = context.state_folder if kept else context.state_folder.parents[1]
    return OverlayPlan(
        name=name,
        kept=context.choice(kept, *path, "overlay", default=default),
        file=str(folder / f"{name}.qcow2") if kept else None,
        folder=str(folder),
        descriptor=-1 if kept else next(context.descriptors),
        size=_size(context, index, disk),
        qemu_img=NeededProgram(
            str(PurePosixPath(context.qemu.binary).with_name("qemu-img")), INSTALL_QEMU_IMG, ("qemu-img",)
        ),
    )


def _check_image(context: Context, index: int, disk: Disk) -> None:
    facts = context.host.images.get(disk.source)
    if disk.image and facts and (found := unfit(disk.image, facts, disk.size)):
        context.refuse(found.message, "disks", index, found.key, hint=found.hint)


def _size(context: Context, index: int, disk: Disk) -> Choice[int] | None:
    if disk.size is not None:
        return context.choice(-(-disk.size // SECTOR) * SECTOR, "disks", index, "size")
    facts = context.host.images.get(disk.source)
    if facts is None or facts.virtual_size is None:
        return None
    return Choice(-(-facts.virtual_size // SECTOR) * SECTOR, rule("the size of the image"))
