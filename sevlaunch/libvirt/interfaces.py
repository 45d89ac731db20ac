"""Network interfaces."""

from __future__ import annotations

from sevlaunch.libvirt.boot_order import note_boot
from sevlaunch.libvirt.conversion import Conversion, number
from sevlaunch.libvirt.document import Element, Part
from sevlaunch.libvirt.outcomes import Key
from sevlaunch.libvirt.virtio import import_dma_api

# The bridge of the network that libvirt brings along; src/network/default.xml.in.
_DEFAULT_BRIDGES = {"default": "virbr0"}

# A range of ports becomes a forward for each port: so many for an interface.
_MAX_FORWARDS = 100

_VIRTIO = ("virtio", "virtio-non-transitional")


def import_interfaces(conversion: Conversion) -> None:
    """devices/interface, in their order."""
    for interface in conversion.devices.all("interface"):
        if interface.get("type") in ("hostdev", "vdpa"):
            if conversion.encrypted:
                conversion.outcomes.refuse(interface, "host devices can't be assigned to an encrypted guest")
            else:
                conversion.outcomes.unsupported(interface, "host devices are not assigned")
        else:
            _interface(conversion, interface, conversion.next("networks"))


def _interface(conversion: Conversion, interface: Element, key: Key) -> None:
    outcomes = conversion.outcomes
    _BACKENDS.get(interface.get("type") or "", _other)(conversion, interface, key)
    mac = interface.child("mac")
    if mac.get("address"):
        outcomes.carry((*key, "mac"), mac.get("address"), mac.part("address"))
    model = interface.child("model")
    if model.get("type") in _VIRTIO:
        outcomes.same(model.part("type"), "virtio")
    elif conversion.encrypted:
        about = model.part("type") or Part(interface)
        outcomes.note(about, "an encrypted guest needs a virtio interface (DMA API): virtio")
    else:
        outcomes.note(model.part("type") or Part(interface), "all interfaces are virtio: its system needs the driver")
    driver = interface.child("driver")
    if driver.get("name") == "qemu":
        outcomes.same(driver.part("name"), "QEMU itself moves the packets")
    elif driver.get("name") == "vhost" and outcomes.values[(*key, "type")].value == "tap":
        outcomes.carry((*key, "vhost"), True, driver.part("name"))
    rom = interface.child("rom")
    if rom.get("file"):
        outcomes.unsupported(rom, "no option ROMs: the firmware boots from the network by itself")
    else:
        outcomes.same(rom.part("bar") or rom.part("enabled"), "no option ROM")
        outcomes.same(rom.part("file"), "no option ROM")
    import_dma_api(conversion, interface, key)
    note_boot(conversion, interface, key)


def _user(conversion: Conversion, interface: Element, key: Key) -> None:
    backend, outcomes = interface.child("backend"), conversion.outcomes
    if backend.get("type") != "passt":
        outcomes.carry((*key, "type"), "user", interface.part("type"))
        return
    outcomes.carry((*key, "type"), "passt", backend.part("type"), interface.part("type"))
    for forward in interface.all("portForward"):
        _forward(conversion, forward, key)


def _forward(conversion: Conversion, forward: Element, key: Key) -> None:
    ranges = list(forward.all("range"))
    protocol, address = forward.get("proto"), forward.get("address") or ""
    if any(one.get("exclude") == "yes" for one in ranges) or protocol not in ("tcp", "udp"):
        conversion.outcomes.unsupported(forward, "name the ports in networks.forward")
        return
    where = f"{address}:" if address else ""
    for one in ranges:
        start = number(one.get("start"))
        end = number(one.get("end")) or start
        to = number(one.get("to")) or start
        if start is None or end is None or to is None or end < start:
            continue
        conversion.outcomes.same(forward.part("proto"), "see networks.forward")
        conversion.outcomes.same(forward.part("address"), "see networks.forward")
        if conversion.length(*key, "forward") + end - start >= _MAX_FORWARDS:
            continue
        parts = [one.part(name) for name in ("start", "end", "to")]
        for offset in range(end - start + 1):
            text = f"{protocol}:{where}{start + offset}:{to + offset}"
            conversion.outcomes.carry(conversion.next(*key, "forward"), text, *parts)


def _bridge(conversion: Conversion, interface: Element, key: Key) -> None:
    source = interface.child("source")
    conversion.outcomes.carry((*key, "type"), "bridge", interface.part("type"))
    conversion.outcomes.carry((*key, "bridge"), source.get("bridge"), source.part("bridge"))


def _network(conversion: Conversion, interface: Element, key: Key) -> None:
    source, outcomes = interface.child("source"), conversion.outcomes
    name = source.get("network") or ""
    bridge = source.get("bridge") or _DEFAULT_BRIDGES.get(name)
    if bridge is None:
        reason = (
            f"which bridge the network {name!r} has, `virsh net-dumpxml` tells: put it in networks; until then user"
        )
        _fallback(conversion, interface, key, source, reason)
        return
    reason = f"the bridge of libvirt's network {name!r}; it is there while libvirt has the network started"
    outcomes.correct((*key, "type"), "bridge", interface.part("type"), reason)
    outcomes.correct((*key, "bridge"), bridge, source.part("bridge") or source.part("network"), reason)
    outcomes.same(source.part("network"), "see networks.bridge")


def _direct(conversion: Conversion, interface: Element, key: Key) -> None:
    reason = "no macvtap: make a bridge or a tap interface, and name it in networks; until then user"
    _fallback(conversion, interface, key, interface.child("source"), reason)


def _ethernet(conversion: Conversion, interface: Element, key: Key) -> None:
    target, outcomes = interface.child("target"), conversion.outcomes
    if not target.get("dev"):
        reason = "libvirt makes this tap interface; sevlaunch takes one that is there: until then user"
        _fallback(conversion, interface, key, interface, reason)
    elif target.get("managed") == "no":
        outcomes.carry((*key, "type"), "tap", interface.part("type"), target.part("managed"))
        outcomes.carry((*key, "interface"), target.get("dev"), target.part("dev"))
    else:
        reason = "libvirt makes this tap interface; sevlaunch takes one that is there: ip tuntap add NAME mode tap"
        outcomes.correct((*key, "type"), "tap", interface.part("type"), reason)
        outcomes.carry((*key, "interface"), target.get("dev"), target.part("dev"))


def _other(conversion: Conversion, interface: Element, key: Key) -> None:
    reason = f"no network of type {interface.get('type')}: until you choose another one, user"
    _fallback(conversion, interface, key, interface.child("source") or interface, reason)


def _fallback(conversion: Conversion, interface: Element, key: Key, about: Element, reason: str) -> None:
    """The interface on QEMU's user-mode network, and what it was connected to as lost."""
    conversion.outcomes.correct((*key, "type"), "user", interface.part("type") or Part(interface), reason)
    if about is interface:
        conversion.outcomes.unsupported(Part(interface), reason)
    else:
        conversion.outcomes.unsupported(about, reason)


_BACKENDS = {
    "user": _user,
    "bridge": _bridge,
    "network": _network,
    "direct": _direct,
    "ethernet": _ethernet,
}
