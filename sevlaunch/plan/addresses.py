"""Where devices are on the PCI bus. Each kind has places of its own: a device added or removed moves no other.

A guest's operating system names networks by these places (enp0s16), and the firmware's boot entries name disks by them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import Struct

from sevlaunch.plan.option import Choice, Option, Parameter, Reason, rule
from sevlaunch.plan.part import Part
from sevlaunch.profile.places import FUNCTIONS, PLACES, places_behind


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


def address_of(root: str, kind: str, position: int) -> Address:
    """The address of a device, the ``position``-th of its kind, which is below the capacity of that kind."""
    places, reason = PLACES[kind], rule(f"each {kind} has its place, whatever else there is")
    if position < len(places.slots):
        return Address(root, places.slots[position], reason)
    number, inner = divmod(position - len(places.slots), places_behind(root))
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
                number = bus.slot * FUNCTIONS + bus.function
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
