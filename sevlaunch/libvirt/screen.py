"""The screen and what is typed: graphics and input devices."""

from __future__ import annotations

import ipaddress

from sevlaunch.libvirt.conversion import Conversion, number
from sevlaunch.libvirt.document import Element, Part
from sevlaunch.libvirt.virtio import import_dma_api
from sevlaunch.profile.model import FIRST_PORT

_VIRTIO_INPUT = {"mouse": "virtio-mouse-pci", "keyboard": "virtio-keyboard-pci", "tablet": "virtio-tablet-pci"}
_USB_INPUT = {"mouse": "usb-mouse", "keyboard": "usb-kbd", "tablet": "usb-tablet"}
_PRIVATE = "a socket in the guest's runtime folder, which its user alone can open; name address to listen on one"


def import_screen(conversion: Conversion) -> None:
    """graphics and input."""
    shown = False
    for graphics in conversion.devices.all("graphics"):
        shown = _graphics(conversion, graphics, shown=shown)
    usb = _tablet(conversion, shown=shown)
    for device in conversion.devices.all("input"):
        usb = _input(conversion, device, usb)


def _graphics(conversion: Conversion, graphics: Element, *, shown: bool) -> bool:
    """Whether there is a display now."""
    outcomes, kind = conversion.outcomes, graphics.get("type")
    if kind not in ("vnc", "spice"):
        outcomes.unsupported(graphics, f"no display of type {kind}: vnc or spice")
        return shown
    if shown:
        outcomes.unsupported(graphics, "one display")
        return True
    card = outcomes.values.get(("video", "type"))
    if card is not None and card.value == "none":
        outcomes.unsupported(graphics, "there is no card whose screen it could show")
        return False
    _card(conversion, graphics)
    outcomes.carry(("display", "type"), kind, graphics.part("type"))
    listen = graphics.child("listen")
    address = listen.get("address") or graphics.get("listen")
    port = number(graphics.get("port"))
    parts = (listen.part("type"), listen.part("address"), graphics.part("listen"), graphics.part("port"))
    chosen = graphics.get("autoport") == "yes" or port is None or port < FIRST_PORT
    if graphics.get("socket") or listen.get("socket") or listen.get("type") == "socket":
        for part in (*parts, graphics.part("socket"), listen.part("socket")):
            outcomes.same(part, _PRIVATE)
    elif graphics.get("passwd"):
        outcomes.note(graphics.part("passwd"), f"no password, but {_PRIVATE}")
        for part in parts:
            outcomes.note(part, _PRIVATE)
    elif chosen or address is None or not _is_ip(address):
        reason = f"libvirt takes a free port, sevlaunch {_PRIVATE}" if chosen else _PRIVATE
        for part in parts:
            outcomes.note(part, reason)
    else:
        said = [part for part in (listen.part("address"), graphics.part("listen")) if part]
        outcomes.carry(("display", "address"), address, *said)
        outcomes.carry(("display", "port"), port, graphics.part("port"))
        outcomes.same(listen.part("type"), "see display.address")
    outcomes.same(graphics.part("autoport"), "see display")
    for name in ("keymap", "sharePolicy"):
        outcomes.unsupported(graphics.part(name), f"QEMU's own {name}")
    outcomes.unsupported(graphics.part("tlsPort"), "no encryption: the socket needs none, an address has none")
    return True


def _card(conversion: Conversion, graphics: Element) -> None:
    """libvirt adds a card to a display where there is none; VIDEO in its src/conf/domain_postparse.c."""
    if conversion.outcomes.values.get(("video", "type")) is None:
        reason = "libvirt adds a card where there is a display"
        conversion.outcomes.carry(("video", "type"), "std", graphics.part("type"), reason=reason)


def _is_ip(address: str) -> bool:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return True


def _tablet(conversion: Conversion, *, shown: bool) -> bool:
    """The display's own tablet; whether there is a USB controller with it."""
    outcomes = conversion.outcomes
    tablets = [
        device
        for device in conversion.devices.all("input")
        if device.get("type") == "tablet" and device.get("bus") in ("usb", None)
    ]
    if not shown:
        for tablet in tablets:
            outcomes.drop(tablet, "nobody points at a screen that is not shown")
        return False
    for tablet in tablets[:1]:
        outcomes.carry(("display", "tablet"), True, tablet.part("type"), tablet.part("bus"))
    for tablet in tablets[1:]:
        outcomes.drop(tablet, "one tablet is all that a pointer needs")
    if not tablets:
        about = Part(conversion.devices)
        outcomes.carry(("display", "tablet"), False, about, reason="the domain has none")
    return bool(tablets)


def _input(conversion: Conversion, device: Element, usb: bool) -> bool:
    """Add an input device; whether there is a USB controller now."""
    outcomes, kind, bus = conversion.outcomes, device.get("type") or "", device.get("bus") or "usb"
    about = device.part("type") or Part(device)
    if kind == "tablet" and bus == "usb":
        return usb
    if bus == "ps2" and kind in ("mouse", "keyboard"):
        outcomes.same(device.part("bus"), "every machine has it")
        outcomes.same(about, "every machine has it")
        return usb
    if bus == "virtio" and kind in _VIRTIO_INPUT:
        dma_api = "on" if conversion.encrypted or device.child("driver").get("iommu") == "on" else "off"
        driver = f"{_VIRTIO_INPUT[kind]},disable-legacy=on,iommu_platform={dma_api}"
        if conversion.encrypted:
            import_dma_api(conversion, device, None)
        outcomes.same(device.child("driver").part("iommu"), "see -device")
    elif bus == "usb" and kind in _USB_INPUT:
        driver = f"{_USB_INPUT[kind]},bus=usb.0"
        if not usb:
            conversion.arguments(about, "-device", "qemu-xhci,id=usb")
        usb = True
    else:
        outcomes.unsupported(device, f"no {kind} on {bus}")
        return usb
    conversion.arguments(about, "-device", driver)
    outcomes.same(device.part("bus"), "see -device")
    return usb
