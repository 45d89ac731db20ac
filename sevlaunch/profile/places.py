"""The places that a machine has for devices on its PCI bus, and what of a profile finds none there."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from sevlaunch.profile.model import Disk, Profile
from sevlaunch.profile.seats import IDE_UNITS, SATA_PORTS, SCSI_TARGETS, network_slots, seats
from sevlaunch.profile.violation import Violation

# PCI: a bus has 32 slots, a slot 8 functions.
FUNCTIONS = 8
_SLOTS = 32


class Places(Struct, frozen=True):
    """The slots of the root bus for one kind of device: ``slots`` first, then ``further``, with ports or bridges."""

    slots: range
    further: tuple[int, ...] = ()


# Left alone: 0 is the host bridge; 1 on pc, 0x1d (with -usb) and 0x1f on q35 are the chipset; 1 and 2 and what no other
# kind has are free for devices of qemu.extra_args, of which QEMU makes some (-nic, -vga) before all -device.
PLACES = {
    "watchdog": Places(range(0x03, 0x04)),
    "video": Places(range(0x04, 0x05)),
    "rng": Places(range(0x05, 0x06)),
    "balloon": Places(range(0x06, 0x07)),
    "vsock": Places(range(0x07, 0x08)),
    "console": Places(range(0x08, 0x09)),
    "agent": Places(range(0x09, 0x0A)),
    "scsi": Places(range(0x0A, 0x0B)),
    "usb": Places(range(0x0D, 0x0E)),
    "sata": Places(range(0x0B, 0x0D), (0x14,)),
    "iommu": Places(range(0x0F, 0x10)),
    "share": Places(range(0), (0x0E,)),
    "network": Places(range(0x10, 0x12), (0x12, 0x13)),
    "disk": Places(range(0x15, 0x19), (0x19, 0x1A, 0x1B, 0x1C)),
    # Behind all disks: Linux gives names in this order, and what was vda stays so.
    "seed": Places(range(0), (0x1E,)),
}


def root_bus(machine: str) -> str:
    """The name of the root bus. q35 is PCIe, as q35 of distributions (pc-q35-rhel9.4.0) is; the older pc is PCI."""
    return "pcie.0" if "q35" in machine else "pci.0"


def own_sata(root: str) -> int:
    """How many SATA controllers the machine has by itself: ICH9 has one, PIIX3 none."""
    return 1 if root == "pcie.0" else 0


def places_behind(root: str) -> int:
    """How many devices there can be behind the ports, or the bridge, of a slot."""
    return FUNCTIONS if root == "pcie.0" else _SLOTS - 1


def capacity(root: str, kind: str) -> int:
    """How many devices of a kind there can be."""
    places = PLACES[kind]
    return len(places.slots) + len(places.further) * places_behind(root)


def check_places(profile: Profile) -> Iterator[Violation]:
    """The disks, networks and shares that the machine has no place for."""
    root = root_bus(profile.machine)
    for index, (disk, seat) in enumerate(zip(profile.disks, seats(profile.disks), strict=True)):
        what, most, instead = _of_disk(root, disk)
        yield from _place("disks", index, seat, most, what, instead)
    bus, most = "this machine's PCI bus", capacity(root, "network")
    for index, slot in enumerate(network_slots(profile.networks)):
        yield from _place("networks", index, slot, most, bus, "leave some networks out")
    most = capacity(root, "share")
    for index in range(len(profile.shares)):
        yield from _place("shares", index, index, most, bus, "share one folder that has others in it")


def _of_disk(root: str, disk: Disk) -> tuple[str, int, str]:
    """What a disk is on, how many disks that has places for, and what to use instead."""
    if disk.bus == "virtio-scsi":
        return "the virtio-scsi controller", SCSI_TARGETS, "put some on another bus"
    if disk.bus == "ide":
        return "the machine's IDE controller", IDE_UNITS, "use bus: sata, virtio-scsi or virtio-blk"
    if disk.bus == "sata":
        most = (own_sata(root) + capacity(root, "sata")) * SATA_PORTS
        return "this machine with all SATA controllers that fit", most, "use bus: virtio-scsi"
    return "this machine's PCI bus", capacity(root, "disk"), "use bus: virtio-scsi"


def _place(section: str, index: int, position: int, most: int, what: str, instead: str) -> Iterator[Violation]:
    if position >= most:
        yield Violation(
            (section, index),
            f"{what} has places 0 to {most - 1} for such devices, and this one is at {position}: {instead}",
            (("machine",),),
        )
