"""Where devices are on the PCI bus. Each kind has places of its own: a device added or removed moves no other.

A guest's operating system names networks by these places (enp0s16), and the firmware's boot entries name disks by them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from msgspec import Struct

from sevlaunch.plan.option import Choice, Option, Parameter, Reason, rule
from sevlaunch.plan.part import Part

# PCI: a bus has 32 slots, a slot 8 functions.
_FUNCTIONS = 8
_SLOTS = 32


class Places(NamedTuple):
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


class Bus(Struct, frozen=True):
    """A PCI bus that the machine does not have by itself: behind a PCIe port, or behind a bridge of an older machine.

    ``slot`` and ``function``: of the root bus.
    """

    driver: str
    slot: int
    function: int

    @property
    def name(self) -> str:
        """Its name, and that of the device that makes it."""
        return f"pci-{self.slot:x}.{self.function}"


class Address(Struct, frozen=True):
    """A slot, on the root bus or ``behind`` another one."""

    root: str
    slot: int
    reason: Reason
    behind: Bus | None = None

    def parameters(self) -> Iterator[Parameter]:
        """Bus and slot of a device."""
        yield Parameter("bus", self.behind.name if self.behind else self.root, self.reason)
        yield Parameter("addr", f"{self.slot:#x}", self.reason)


def root_bus(machine: str) -> str:
    """The name of the root bus. q35 is PCIe, as q35 of distributions (pc-q35-rhel9.4.0) is; the older pc is PCI.

    :param machine: QEMU's machine type, no alias.
    """
    return "pcie.0" if "q35" in machine else "pci.0"


def capacity(root: str, kind: str) -> int:
    """How many devices of a kind there can be."""
    places = PLACES[kind]
    return len(places.slots) + len(places.further) * _places_behind(root)


def address_of(root: str, kind: str, position: int) -> Address:
    """The address of a device, the ``position``-th of its kind, which is below :func:`capacity`."""
    places, reason = PLACES[kind], rule(f"each {kind} has its place, whatever else there is")
    if position < len(places.slots):
        return Address(root, places.slots[position], reason)
    number, inner = divmod(position - len(places.slots), _places_behind(root))
    if root == "pcie.0":
        # One device behind each port, which is a function of the slot.
        return Address(root, 0, reason, Bus("pcie-root-port", places.further[number], inner))
    # Slot 0 behind a bridge is for its hot-plug controller.
    return Address(root, inner + 1, reason, Bus("pci-bridge", places.further[number], 0))


class BusesPlan(Part, frozen=True, kw_only=True):
    """The ports and bridges that devices are behind."""

    root: str
    buses: tuple[Bus, ...]

    def options(self) -> Iterator[Option]:
        """One device for each."""
        why = rule("more devices than the root bus has places for them")
        for bus in self.buses:
            parameters = [
                Parameter("", bus.driver, why),
                Parameter("id", bus.name, why),
                Parameter("bus", self.root, why),
                Parameter("addr", f"{bus.slot:#x}.{bus.function}", why),
            ]
            if bus.driver == "pcie-root-port":
                number = bus.slot * _FUNCTIONS + bus.function
                parameters.append(Parameter("chassis", str(number), rule("a number that no other port has")))
                shared = Choice(True, rule("the ports of a slot are its functions"))
                parameters += [shared.parameter("multifunction")] if bus.function == 0 else []
                parameters.append(Parameter("hotplug", "off", rule("no device comes later")))
            else:
                parameters.append(Parameter("chassis_nr", str(bus.slot), rule("a number that no other bridge has")))
                parameters.append(Parameter("shpc", "off", rule("no device comes later")))
            yield Option("-device", tuple(parameters))


def buses_behind(root: str, addresses: Iterable[Address]) -> BusesPlan:
    """What the addresses need on the root bus; of a slot with ports, all functions up to the last one.

    Nobody looks at a slot's other functions where it has no function 0.
    """
    last: dict[int, Bus] = {}
    for address in addresses:
        bus = address.behind
        if bus and (bus.slot not in last or last[bus.slot].function < bus.function):
            last[bus.slot] = bus
    return BusesPlan(
        root=root,
        buses=tuple(
            Bus(last[slot].driver, slot, function)
            for slot in sorted(last)
            for function in range(last[slot].function + 1)
        ),
    )


def _places_behind(root: str) -> int:
    return _FUNCTIONS if root == "pcie.0" else _SLOTS - 1
