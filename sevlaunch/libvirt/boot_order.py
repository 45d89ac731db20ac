"""Which devices the firmware tries, in which order: boot elements of devices, or the kinds of device in os/boot."""

from __future__ import annotations

from sevlaunch.libvirt.conversion import Conversion, number
from sevlaunch.libvirt.document import Element, Part
from sevlaunch.libvirt.outcomes import Key


def note_boot(conversion: Conversion, device: Element, key: Key) -> None:
    """Keep a device's own place in the order: ``<boot order='N'/>``; ``key`` such as ("disks", 0)."""
    boot = device.child("boot")
    order = number(boot.get("order"))
    if order is not None:
        conversion.boot.append((order, _name(key), Part(boot, "order")))


def import_boot_order(conversion: Conversion) -> None:
    """The order, once the devices have their places in the profile."""
    outcomes = conversion.outcomes
    for _, name, part in sorted(conversion.boot, key=lambda entry: entry[0]):
        outcomes.carry(conversion.next("boot", "order"), name, part)
    taken = {name for _, name, _ in conversion.boot}
    for boot in conversion.domain.child("os").all("boot"):
        first = _first_of_kind(conversion, boot.get("dev") or "")
        if first and first not in taken:
            taken.add(first)
            outcomes.carry(conversion.next("boot", "order"), first, boot.part("dev"))
        elif first:
            outcomes.same(boot.part("dev"), "stands in boot.order already")
        else:
            outcomes.drop(boot.part("dev"), "there is no such device to boot from")


def _first_of_kind(conversion: Conversion, kind: str) -> str | None:
    values = conversion.outcomes.values
    for key in values:
        if kind == "network" and key[0] == "networks":
            return _name(key)
        if (
            kind in ("hd", "cdrom")
            and key[0] == "disks"
            and (("disks", key[1], "cdrom") in values) == (kind == "cdrom")
        ):
            return _name(key)
    return None


def _name(key: Key) -> str:
    return f"{'disk' if key[0] == 'disks' else 'net'}{key[1]}"
