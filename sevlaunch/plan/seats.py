"""Where each disk is on its bus: disks from the first place on, CD-ROMs from the last one back.

A CD-ROM that is removed after an installation so moves no disk, nor does a disk that is added behind the others move
a CD-ROM.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count

from sevlaunch.profile.model import Bus, Disk

# Ports of an AHCI controller: ICH9's, which QEMU's ich9-ahci is.
SATA_PORTS = 6
# PIIX3: two channels of two.
IDE_UNITS = 4
# QEMU's include/hw/virtio/virtio-scsi.h, VIRTIO_SCSI_MAX_TARGET.
SCSI_TARGETS = 256

_ON_ONE_CONTROLLER: dict[Bus, int] = {"sata": SATA_PORTS, "ide": IDE_UNITS, "virtio-scsi": SCSI_TARGETS}


def seats(disks: Sequence[Disk]) -> list[int]:
    """The place of each disk among those on its bus, counted from 0 through all controllers of the bus."""
    found: dict[int, int] = {}
    for bus in dict.fromkeys(disk.bus for disk in disks):
        here = [index for index, disk in enumerate(disks) if disk.bus == bus]
        cdroms = [index for index in here if disks[index].cdrom]
        found |= zip(cdroms, _from_the_last(_ON_ONE_CONTROLLER.get(bus, len(here))), strict=False)
        taken = {found[index] for index in cdroms}
        free = (seat for seat in count() if seat not in taken)
        found |= zip((index for index in here if index not in cdroms), free, strict=False)
    return [found[index] for index in range(len(disks))]


def _from_the_last(size: int) -> Iterator[int]:
    """The places of the first controller from the last one back, then those of the next."""
    for controller in count():
        yield from reversed(range(controller * size, (controller + 1) * size))
