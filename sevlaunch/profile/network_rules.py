"""Rules about networks: what a model, or what is behind it, can't do, and what two of them can't share."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from sevlaunch.profile.fields import split_forward
from sevlaunch.profile.model import MacvtapNetwork, Network, PasstNetwork, Profile, TapNetwork, UserNetwork
from sevlaunch.profile.positions import KeyPath
from sevlaunch.profile.seats import network_slots
from sevlaunch.profile.violation import Violation

# Where a forwarded port of the host is, unless the profile says another address.
LOOPBACK = "127.0.0.1"
# The MTU of slirp: IF_MTU_DEFAULT in its src/slirp.h; QEMU sets no other.
SLIRP_MTU = 1500


def mac_addresses(profile: Profile) -> list[str]:
    """The MAC address of each network: its own, or always the same one for the guest's name and the network's place."""
    places = network_slots(profile.networks)
    return [
        network.mac or _derived(profile.name, place) for network, place in zip(profile.networks, places, strict=True)
    ]


def _derived(name: str, place: int) -> str:
    """An address in QEMU's range."""
    digest = hashlib.sha256(f"{name}\0{place}".encode()).digest()
    return "52:54:00:" + ":".join(f"{byte:02x}" for byte in digest[:3])


def check_networks(profile: Profile) -> Iterator[Violation]:
    """Every rule about networks that ``profile`` breaks."""
    for index, network in enumerate(profile.networks):
        yield from _model(index, network)
        if isinstance(network, TapNetwork):
            yield from _tap(index, network)
        if isinstance(network, PasstNetwork):
            yield from _passt_ports(index, network)
            yield from _vhost_user(profile, index, network)
        if isinstance(network, UserNetwork) and network.mtu is not None and network.mtu > SLIRP_MTU:
            yield Violation(
                ("networks", index, "mtu"),
                f"QEMU's user-mode network has packets of at most {SLIRP_MTU} bytes, found {network.mtu}: use passt",
            )
    yield from _forwards(profile)
    yield from _shared(profile)


def network_cautions(profile: Profile) -> Iterator[Violation]:
    """What may be asked for, and comes to less than it looks like."""
    for index, network in enumerate(profile.networks):
        queues = queues_of(network)
        if queues > profile.cpu.count:
            yield Violation(
                ("networks", index, "queues"),
                f"the guest uses one pair of queues for each vCPU: {profile.cpu.count} of {queues}",
                (("cpu", "count"),),
            )


def queues_of(network: Network) -> int:
    """The pairs of queues that a network has."""
    if isinstance(network, TapNetwork) and network.descriptors:
        return len(network.descriptors)
    return network.queues if isinstance(network, (TapNetwork, MacvtapNetwork)) else 1


def _model(index: int, network: Network) -> Iterator[Violation]:
    if network.model == "virtio":
        return
    told = {
        "mtu": network.mtu is not None,
        "iommu_platform": network.iommu_platform is not None,
        "queues": queues_of(network) > 1,
        "vhost": getattr(network, "vhost", False),
    }
    for key, there in told.items():
        if there:
            yield Violation(
                ("networks", index, key),
                f"{key} is for virtio devices, found model {network.model}: leave one of them out",
                (("networks", index, "model"),),
            )


def _passt_ports(index: int, network: PasstNetwork) -> Iterator[Violation]:
    taken = "passt does not tell which port it took: name a port, or use type: user"
    if network.ssh == "auto":
        yield Violation(("networks", index, "ssh"), taken)
    for position, forward in enumerate(network.forward):
        if split_forward(forward)[2] == 0:
            yield Violation(("networks", index, "forward", position), taken)


def _vhost_user(profile: Profile, index: int, network: PasstNetwork) -> Iterator[Violation]:
    if not network.vhost_user:
        return
    path = ("networks", index, "vhost_user")
    if profile.security.encrypted:
        reason = "passt would read guest memory, which is encrypted: leave vhost_user out"
        yield Violation(path, reason, (("security", "type"),))
    if network.model != "virtio":
        reason = f"vhost_user is for virtio devices, found model {network.model}"
        yield Violation(path, reason, (("networks", index, "model"),))
    if network.iommu_platform:
        reason = "passt does not know the DMA API: leave iommu_platform or vhost_user out"
        yield Violation(("networks", index, "iommu_platform"), reason, (path,))


def _tap(index: int, network: TapNetwork) -> Iterator[Violation]:
    path = ("networks", index)
    if network.interface is None and not network.descriptors:
        named = ((*path, "interface"), (*path, "descriptors"))
        yield Violation(path, "a tap network needs interface, or descriptors", named)
    if network.descriptors and network.interface is not None:
        yield Violation(
            (*path, "descriptors"),
            "descriptors stand for an interface that is open, and interface names one: leave one of them out",
            ((*path, "interface"),),
        )
    if network.descriptors and network.queues not in (1, len(network.descriptors)):
        yield Violation(
            (*path, "queues"),
            f"each descriptor is a queue: found {len(network.descriptors)} descriptors and {network.queues} queues",
            ((*path, "descriptors"),),
        )


def _shared(profile: Profile) -> Iterator[Violation]:
    interfaces: dict[str, int] = {}
    macs: dict[str, int] = {}
    slots: dict[int, int] = {}
    addresses = mac_addresses(profile)
    descriptors: set[int] = set()
    for index, network in enumerate(profile.networks):
        path = ("networks", index)
        name = network.interface if isinstance(network, (TapNetwork, MacvtapNetwork)) else None
        if name is not None and name in interfaces:
            first = ("networks", interfaces[name], "interface")
            yield Violation(
                (*path, "interface"), f"two networks are on the interface {name}: each needs its own", (first,)
            )
        elif name is not None:
            interfaces[name] = index
        if network.slot is not None and slots.setdefault(network.slot, index) != index:
            holder = slots[network.slot]
            message = f"networks.{holder} is on slot {network.slot}: give this one another"
            yield Violation((*path, "slot"), message, (("networks", holder, "slot"),))
        mac = addresses[index]
        # Those of two on one slot are the same, and one mistake is enough.
        if mac in macs and (network.mac or profile.networks[macs[mac]].mac):
            first = ("networks", macs[mac], "mac")
            yield Violation((*path, "mac"), f"two networks have the MAC address {mac}: each needs its own", (first,))
        macs.setdefault(mac, index)
        for position, number in enumerate(network.descriptors if isinstance(network, TapNetwork) else ()):
            if number in descriptors:
                yield Violation((*path, "descriptors", position), f"descriptor {number} stands there twice")
            descriptors.add(number)


def _forwards(profile: Profile) -> Iterator[Violation]:
    seen: set[tuple[str, str, int]] = set()
    ssh: KeyPath | None = None
    for index, network in enumerate(profile.networks):
        if not isinstance(network, (UserNetwork, PasstNetwork)):
            continue
        if network.ssh is not None:
            path = ("networks", index, "ssh")
            if ssh is not None:
                message = "another network has the port for SSH already: the guest has one"
                yield Violation(path, message, (ssh,))
            ssh = ssh or path
            if network.ssh != "auto":
                seen.add(("tcp", LOOPBACK, network.ssh))
        for position, forward in enumerate(network.forward):
            protocol, address, port, _ = split_forward(forward)
            place = (protocol, address or LOOPBACK, port)
            # Each 0 is another port.
            if port and place in seen:
                yield Violation(("networks", index, "forward", position), "this host port is forwarded twice")
            seen.add(place)
