"""Network interfaces."""

from __future__ import annotations

from sevlaunch.libvirt.boot_order import note_boot
from sevlaunch.libvirt.conversion import Conversion, number
from sevlaunch.libvirt.document import Element, Part
from sevlaunch.libvirt.outcomes import Key
from sevlaunch.libvirt.virtio import import_dma_api, note_modern
from sevlaunch.profile.network_rules import SLIRP_MTU

# The bridge of the network that libvirt brings along; src/network/default.xml.in.
_DEFAULT_BRIDGES = {"default": "virbr0"}

# A range of ports becomes a forward for each port: so many for an interface.
_MAX_FORWARDS = 100

_VIRTIO = ("virtio", "virtio-non-transitional", "virtio-transitional")


def import_interfaces(conversion: Conversion) -> None:
    """devices/interface, in their order."""
    for interface in conversion.devices.all("interface"):
        if interface.get("type") in ("hostdev", "vdpa"):
            if conversion.encrypted:
                conversion.outcomes.refuse(interface, "sevlaunch can't assign host devices to an encrypted guest yet")
            else:
                conversion.outcomes.unsupported(interface, "host devices are not assigned")
        else:
            _interface(conversion, interface, conversion.next("networks"))


def _interface(conversion: Conversion, interface: Element, key: Key) -> None:
    outcomes = conversion.outcomes
    _BACKENDS.get(interface.get("type") or "", _other)(conversion, interface, key)
    _mac(conversion, interface.child("mac"), key)
    _model(conversion, interface, key)
    _driver(conversion, interface.child("driver"), key)
    _mtu(conversion, interface.child("mtu"), key)
    rom = interface.child("rom")
    if rom.get("file"):
        outcomes.unsupported(rom, "no option ROMs: the firmware boots from the network by itself")
    else:
        outcomes.same(rom.part("bar") or rom.part("enabled"), "no option ROM")
        outcomes.same(rom.part("file"), "no option ROM")
    if (*key, "model") not in outcomes.values:
        import_dma_api(conversion, interface, key)
    note_boot(conversion, interface, key)


def _mac(conversion: Conversion, mac: Element, key: Key) -> None:
    outcomes, address = conversion.outcomes, (mac.get("address") or "").lower()
    others = [str(origin.value).lower() for known, origin in outcomes.values.items() if known[-1] == "mac"]
    if address in others:
        outcomes.note(mac.part("address"), "another interface has it: derived from the guest's name")
    elif address:
        outcomes.carry((*key, "mac"), mac.get("address"), mac.part("address"))


def _model(conversion: Conversion, interface: Element, key: Key) -> None:
    outcomes, model = conversion.outcomes, interface.child("model")
    about = model.part("type") or Part(interface)
    if model.get("type") in _VIRTIO:
        outcomes.same(model.part("type"), "virtio")
        note_modern(conversion, model, model.get("type"))
    elif model.get("type") == "e1000e":
        outcomes.carry((*key, "model"), "e1000e", model.part("type"))
    elif conversion.encrypted:
        outcomes.note(about, "an encrypted guest needs a virtio interface (DMA API): virtio")
    else:
        outcomes.note(about, "all interfaces are virtio: its system needs the driver")


def _driver(conversion: Conversion, driver: Element, key: Key) -> None:
    """What moves the packets, and in how many queues; both are for virtio alone, as in libvirt."""
    outcomes, kind = conversion.outcomes, _type(conversion, key)
    virtio = (*key, "model") not in outcomes.values
    if driver.get("name") == "qemu":
        outcomes.same(driver.part("name"), "QEMU itself moves the packets")
    elif driver.get("name") == "vhost" and virtio and kind in ("tap", "bridge", "macvtap"):
        outcomes.carry((*key, "vhost"), True, driver.part("name"))
    queues = number(driver.get("queues"))
    if queues == 1:
        outcomes.same(driver.part("queues"), "one queue")
    elif queues and virtio and kind in ("tap", "macvtap"):
        outcomes.carry((*key, "queues"), queues, driver.part("queues"))
    elif kind == "bridge":
        reason = "qemu-bridge-helper makes one queue: put a multi_queue tap interface on the bridge, and name it"
        outcomes.unsupported(driver.part("queues"), reason)


def _type(conversion: Conversion, key: Key) -> str:
    """The type of a network in the profile."""
    return str(conversion.outcomes.values[(*key, "type")].value)


def _mtu(conversion: Conversion, mtu: Element, key: Key) -> None:
    size, kind = number(mtu.get("size")), _type(conversion, key)
    if size is None or (*key, "model") in conversion.outcomes.values:
        return
    if kind == "user" and size > SLIRP_MTU:
        conversion.outcomes.unsupported(mtu, f"QEMU's user-mode network has {SLIRP_MTU} at most: use passt")
    else:
        conversion.outcomes.carry((*key, "mtu"), size, mtu.part("size"))


def _user(conversion: Conversion, interface: Element, key: Key) -> None:
    backend, outcomes = interface.child("backend"), conversion.outcomes
    if backend.get("type") != "passt":
        outcomes.carry((*key, "type"), "user", interface.part("type"))
        return
    outcomes.carry((*key, "type"), "passt", backend.part("type"), interface.part("type"))
    for forward in interface.all("portForward"):
        _forward(conversion, forward, key)


def _vhost_user(conversion: Conversion, interface: Element, key: Key) -> None:
    """A switch that maps guest memory: passt alone is one that sevlaunch starts."""
    outcomes = conversion.outcomes
    if interface.child("backend").get("type") != "passt":
        _other(conversion, interface, key)
        return
    _user(conversion, interface, key)
    if conversion.encrypted:
        outcomes.note(interface.child("model").part("type"), "passt can't map encrypted memory: it gets copies")
    else:
        outcomes.carry((*key, "vhost_user"), True, Part(interface))


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
        if not start or not end or not to or end < start:
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
    """libvirt makes a macvtap interface at each start; sevlaunch takes one that is there."""
    outcomes, source = conversion.outcomes, interface.child("source")
    name = interface.child("target").get("dev") or f"macvtap{key[-1]}"
    mode, mac = source.get("mode") or "vepa", interface.child("mac").get("address")
    make = f"ip link add link {source.get('dev') or 'INTERFACE'} name {name} type macvtap mode {mode}"
    address = f", with address {mac}" if mac else ""
    reason = f"libvirt makes it, sevlaunch takes one that is there: {make}{address}"
    outcomes.correct((*key, "type"), "macvtap", interface.part("type"), reason)
    about = interface.child("target").part("dev") or source.part("dev") or Part(source if source else interface)
    outcomes.correct((*key, "interface"), name, about, reason)
    for part in (source.part("dev"), source.part("mode")):
        if part != about:
            outcomes.same(part, "see networks.interface")


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
    "vhostuser": _vhost_user,
    "bridge": _bridge,
    "network": _network,
    "direct": _direct,
    "ethernet": _ethernet,
}
