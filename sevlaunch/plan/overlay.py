"""What takes the writes to a disk whose own image is never written: a qcow2 image on top of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from msgspec import Struct

from sevlaunch.host.facts import ImageFacts
from sevlaunch.plan.context import Context
from sevlaunch.plan.needs import NeededProgram, Needs
from sevlaunch.plan.option import Choice, Option, Parameter, rule
from sevlaunch.profile.model import BASE_FORMATS, Disk
from sevlaunch.remedies import FLATTEN, INSTALL_QEMU_IMG
from sevlaunch.units import format_size

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
        """How QEMU takes over what has no name: monitor/fds.c, a set of descriptors with this one in it."""
        if self.file is None:
            numbers = (Parameter(key, str(self.descriptor), self.kept.reason) for key in ("fd", "set"))
            yield Option("-add-fd", tuple(numbers))

    def filename(self) -> Parameter:
        """What QEMU opens."""
        return Parameter("file.filename", self.file or f"/dev/fdset/{self.descriptor}", self.kept.reason)


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
    if not facts.virtual_size:
        return Unfit("image", f"{path} has no content, or is damaged", "get it again")
    if size is not None and size < facts.virtual_size:
        has = format_size(facts.virtual_size)
        return Unfit("size", f"{path} has {has}, and the disk would have {format_size(size)}", "leave size out")
    return None


def _check_image(context: Context, index: int, disk: Disk) -> None:
    facts = context.host.images.get(disk.image or "")
    if disk.image and facts and (found := unfit(disk.image, facts, disk.size)):
        context.refuse(found.message, "disks", index, found.key, hint=found.hint)


def _size(context: Context, index: int, disk: Disk) -> Choice[int] | None:
    if disk.size is not None:
        return context.choice(-(-disk.size // SECTOR) * SECTOR, "disks", index, "size")
    facts = context.host.images.get(disk.source)
    if facts is None or facts.virtual_size is None:
        return None
    return Choice(-(-facts.virtual_size // SECTOR) * SECTOR, rule("the size of the image"))
