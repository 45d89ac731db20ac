"""Devices that no key of the profile stands for, as QEMU's own arguments: VNC, input, watchdog, qemu:commandline."""

from __future__ import annotations

import ipaddress

from sevlaunch.libvirt.conversion import Conversion, number
from sevlaunch.libvirt.document import Element, Part
from sevlaunch.libvirt.virtio import import_dma_api

_FIRST_VNC_PORT = 5900
_VNC_DISPLAYS = 100

# qapi/run-state.json, WatchdogAction; libvirt's "dump" would need a core dump.
_WATCHDOG_ACTIONS = ("reset", "shutdown", "poweroff", "pause", "none", "inject-nmi")

_VIRTIO_INPUT = {"mouse": "virtio-mouse-pci", "keyboard": "virtio-keyboard-pci", "tablet": "virtio-tablet-pci"}
_USB_INPUT = {"mouse": "usb-mouse", "keyboard": "usb-kbd", "tablet": "usb-tablet"}


def import_arguments(conversion: Conversion) -> None:
    """graphics, input, watchdog, and the arguments that the domain itself has for QEMU."""
    for graphics in conversion.devices.all("graphics"):
        _graphics(conversion, graphics)
    usb = False
    for device in conversion.devices.all("input"):
        usb = _input(conversion, device, usb)
    for watchdog in conversion.devices.all("watchdog"):
        _watchdog(conversion, watchdog)
    commandline = conversion.domain.child("qemu:commandline")
    for argument in commandline.all("qemu:arg"):
        value = argument.part("value")
        if value:
            conversion.arguments(value, argument.get("value") or "")
    for variable in commandline.all("qemu:env"):
        conversion.outcomes.unsupported(variable, "set it in the environment of `sevlaunch up`")


def _graphics(conversion: Conversion, graphics: Element) -> None:
    outcomes, kind = conversion.outcomes, graphics.get("type")
    if kind == "spice":
        outcomes.unsupported(graphics, "no SPICE: QEMU's own VNC server is a way to the screen")
    elif kind != "vnc":
        outcomes.unsupported(graphics, f"no display of type {kind}")
    elif graphics.get("passwd"):
        # Without it anyone could see the screen, and an argument is no place for a password.
        outcomes.unsupported(
            graphics, "no VNC with a password: use -vnc with tls-creds, or a socket, in qemu.extra_args"
        )
    elif graphics.get("socket") or graphics.child("listen").get("type") in ("socket", "network", "none"):
        outcomes.unsupported(graphics, "VNC on an address alone; qemu.extra_args takes -vnc unix:PATH")
    else:
        _vnc(conversion, graphics)


def _vnc(conversion: Conversion, graphics: Element) -> None:
    outcomes, listen = conversion.outcomes, graphics.child("listen")
    address = listen.get("address") or graphics.get("listen") or "127.0.0.1"
    try:
        is_six = ipaddress.ip_address(address).version == 6
    except ValueError:
        outcomes.unsupported(graphics, "VNC on an IP address alone; qemu.extra_args takes -vnc HOST:DISPLAY")
        return
    port = number(graphics.get("port"))
    automatic = graphics.get("autoport") == "yes" or port in (None, -1)
    if not automatic and not 0 <= (port or 0) - _FIRST_VNC_PORT <= (1 << 16) - 1 - _FIRST_VNC_PORT:
        outcomes.unsupported(graphics, f"VNC displays start at port {_FIRST_VNC_PORT}")
        return
    display = 0 if automatic or port is None else port - _FIRST_VNC_PORT
    search = f",to={_VNC_DISPLAYS - 1}" if automatic else ""
    host = f"[{address}]" if is_six else address
    conversion.arguments(Part(graphics, "type"), "-vnc", f"{host}:{display}{search}")
    for part in (graphics.part("port"), graphics.part("autoport"), graphics.part("listen")):
        outcomes.same(part, "see -vnc")
    for part in (listen.part("type"), listen.part("address")):
        outcomes.same(part, "see -vnc")


def _input(conversion: Conversion, device: Element, usb: bool) -> bool:
    """Add an input device; whether there is a USB controller now."""
    outcomes, kind, bus = conversion.outcomes, device.get("type") or "", device.get("bus") or "usb"
    about = device.part("type") or Part(device)
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


def _watchdog(conversion: Conversion, watchdog: Element) -> None:
    model, action = watchdog.get("model"), watchdog.get("action") or "reset"
    about = watchdog.part("model") or Part(watchdog)
    if action not in _WATCHDOG_ACTIONS or model not in ("itco", "i6300esb"):
        conversion.outcomes.unsupported(watchdog, f"no {model} watchdog with action {action}")
        return
    if model == "itco":
        conversion.arguments(about, "-global", "ICH9-LPC.noreboot=off")
    else:
        conversion.arguments(about, "-device", "i6300esb")
    conversion.arguments(watchdog.part("action") or about, "-watchdog-action", action)
