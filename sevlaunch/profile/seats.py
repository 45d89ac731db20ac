"""Where each disk is on its bus, and each network: disks from the first place on, CD-ROMs from the last one back.

A CD-ROM that is removed after an installation so moves no disk, nor does a disk that is added behind the others move
a CD-ROM. A ``slot`` of its own goes before both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count

from sevlaunch.profile.model import Bus, Disk, Network

# Ports of an AHCI controller: ICH9's, which QEMU's ich9-ahci is.
SATA_PORTS = 6
# PIIX3: two channels of two.
IDE_UNITS = 4
# QEMU's include/hw/virtio/virtio-scsi.h, VIRTIO_SCSI_MAX_TARGET.
SCSI_TARGETS = 256
# edk2's OvmfPkg.dec, PcdVirtioScsiMaxTargetLimit: the firmware looks at no others, and boots from none.
SCSI_BOOT_TARGETS = 32

# Disks that are PCI devices themselves are on one bus, whatever their kind.
_PCI: tuple[Bus, ...] = ("virtio-blk", "nvme")
_ON_ONE_CONTROLLER: dict[Bus, int] = {"sata": SATA_PORTS, "ide": IDE_UNITS, "virtio-scsi": SCSI_BOOT_TARGETS}


def bus_group(bus: Bus) -> Bus:
    """One name for all kinds of disks that are on the same bus."""
    return _PCI[0] if bus in _PCI else bus


def seats(disks: Sequence[Disk]) -> list[int]:
    """The place of each disk among those on its bus, counted from 0 through all controllers of the bus."""
    found = {index: disk.slot for index, disk in enumerate(disks) if disk.slot is not None}
    for bus in dict.fromkeys(bus_group(disk.bus) for disk in disks):
        here = [index for index, disk in enumerate(disks) if bus_group(disk.bus) == bus]
        taken = {found[index] for index in here if index in found}
        backwards = _from_the_last(_ON_ONE_CONTROLLER.get(bus, len(here)))
        for cdroms, places in ((True, backwards), (False, count())):
            for index in here:
                if disks[index].cdrom == cdroms and index not in found:
                    found[index] = next(place for place in places if place not in taken)
                    taken.add(found[index])
    return [found[index] for index in range(len(disks))]


def network_slots(networks: Sequence[Network]) -> list[int]:
    """The place of each network among all, from 0."""
    taken = {network.slot for network in networks}
    free = (place for place in count() if place not in taken)
    return [next(free) if network.slot is None else network.slot for network in networks]


def _from_the_last(size: int) -> Iterator[int]:
    """The places of the first controller from the last one back, then those of the next."""
    for controller in count():
        yield from reversed(range(controller * size, (controller + 1) * size))
