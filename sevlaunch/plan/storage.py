"""All disks, and what they hang on: controllers beyond those of the machine, and I/O threads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from msgspec.structs import replace

from sevlaunch.plan.needs import Needs, merged
from sevlaunch.plan.option import Choice, Option, Parameter, rule
from sevlaunch.plan.part import Part

if TYPE_CHECKING:
    from sevlaunch.plan.addresses import Address
    from sevlaunch.plan.disk import DiskPlan, ScsiPlan
    from sevlaunch.plan.overlay import OverlayPlan


class StoragePlan(Part, frozen=True, kw_only=True):
    """All disks, the controllers that the machine does not have by itself, and the I/O threads."""

    disks: tuple[DiskPlan, ...]
    iothreads: tuple[Choice[str], ...]
    scsi: ScsiPlan | None
    sata: tuple[Address, ...]

    @property
    def needs(self) -> Needs:
        """The images."""
        return merged(disk.image.needs for disk in self.disks)

    @property
    def overlays(self) -> tuple[OverlayPlan, ...]:
        """What takes the writes to images that are never written."""
        return tuple(disk.image.overlay for disk in self.disks if disk.image.overlay)

    @property
    def made(self) -> bool:
        """Whether anything is made for them at the start."""
        return any(disk.image.overlay or disk.image.folder for disk in self.disks)

    @property
    def keeps_system(self) -> bool:
        """Whether what the guest writes to its first disk is there at its next start; else its system begins anew."""
        if not self.disks:
            return False
        image = self.disks[0].image
        return image.overlay.kept.value if image.overlay else not image.read_only.value

    def options(self) -> Iterator[Option]:
        """Threads and controllers, then each disk with what is behind it."""
        for thread in self.iothreads:
            yield Option("-object", (Parameter("", "iothread", thread.reason), thread.parameter("id")))
        for number, address in enumerate(self.sata):
            why = rule("controller of the SATA disks")
            identity = (Parameter("", "ich9-ahci", why), Parameter("id", f"sata{number}", why))
            yield Option("-device", (*identity, *address.parameters()))
        if self.scsi:
            yield from self.scsi.options()
        for disk in self.disks:
            yield from disk.image.options()
            yield disk.frontend()


NO_DISKS = StoragePlan(disks=(), iothreads=(), scsi=None, sata=())


def with_overlays(storage: StoragePlan, numbers: Mapping[int, int]) -> StoragePlan:
    """The disks with other numbers for what QEMU is handed open: those that it really has."""
    return replace(storage, disks=tuple(_renumbered(disk, numbers) for disk in storage.disks))


def _renumbered(disk: DiskPlan, numbers: Mapping[int, int]) -> DiskPlan:
    overlay, folder = disk.image.overlay, disk.image.folder
    if overlay and not overlay.kept.value:
        overlay = replace(overlay, descriptor=numbers[overlay.descriptor])
    if folder:
        folder = replace(folder, descriptor=numbers[folder.descriptor])
    return replace(disk, image=replace(disk.image, overlay=overlay, folder=folder))
