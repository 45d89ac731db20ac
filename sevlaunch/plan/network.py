"""Network devices, and the processes that some of them need beside QEMU."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from msgspec import Struct

from sevlaunch.plan.companion import Companion
from sevlaunch.plan.context import Context
from sevlaunch.plan.option import Option, Parameter, rule
from sevlaunch.plan.storage import boot_index
from sevlaunch.plan.virtio import virtio_parameters
from sevlaunch.profile.fields import split_forward
from sevlaunch.profile.model import BridgeNetwork, Network, PasstNetwork, TapNetwork, UserNetwork

LOOPBACK = "127.0.0.1"


class NetworkPlan(Struct, frozen=True):
    """The options for all networks, and what runs beside QEMU for them."""

    options: tuple[Option, ...]
    companions: tuple[Companion, ...]
    bridge_helper: bool


def resolve_network(context: Context) -> NetworkPlan:
    """Networks for the profile."""
    options: list[Option] = []
    companions: list[Companion] = []
    for index, network in enumerate(context.profile.networks):
        options.append(Option("-netdev", tuple(_backend(context, index, network, companions))))
        options.append(Option("-device", tuple(_frontend(context, index, network))))
    return NetworkPlan(
        tuple(options),
        tuple(companions),
        any(isinstance(network, BridgeNetwork) for network in context.profile.networks),
    )


def derived_mac(name: str, index: int) -> str:
    """A MAC address in QEMU's range that is always the same for a guest's name and the network's position."""
    digest = hashlib.sha256(f"{name}\0{index}".encode()).digest()
    return "52:54:00:" + ":".join(f"{byte:02x}" for byte in digest[:3])


def _backend(context: Context, index: int, network: Network, companions: list[Companion]) -> Iterator[Parameter]:
    path = ("networks", index)
    kind = {"user": "user", "tap": "tap", "bridge": "bridge", "passt": "stream"}[network.type]
    if kind not in context.qemu.netdevs and context.qemu.netdevs:
        context.lack(
            f"QEMU {context.qemu.version} has no network backend {kind!r}, which networks.{index} needs",
            hint="install a QEMU that has it, or use another type of network",
        )
    yield context.from_profile("", kind, *path, "type")
    yield Parameter("id", f"net{index}", rule("position in networks"))
    if isinstance(network, UserNetwork):
        if network.restrict:
            yield context.from_profile("restrict", True, *path, "restrict")
        for position, forward in enumerate(network.forward):
            protocol, address, host_port, guest_port = split_forward(forward)
            text = f"{protocol}:{address or LOOPBACK}:{host_port}-:{guest_port}"
            yield context.from_profile("hostfwd", text, *path, "forward", position)
    elif isinstance(network, TapNetwork):
        yield context.from_profile("ifname", network.interface, *path, "interface")
        for key in ("script", "downscript"):
            yield Parameter(key, "no", rule("the interface is set up already"))
        if network.vhost:
            yield context.from_profile("vhost", True, *path, "vhost")
    elif isinstance(network, BridgeNetwork):
        yield context.from_profile("br", network.bridge, *path, "bridge")
    else:
        socket = str(context.folder / f"passt{index}.sock")
        companions.append(_passt(context, index, network, socket))
        yield Parameter("server", "off", rule("passt listens"))
        yield Parameter("addr.type", "unix", rule("passt's socket"))
        yield Parameter("addr.path", socket, rule("passt's socket"))


def _passt(context: Context, index: int, network: PasstNetwork, socket: str) -> Companion:
    # Without --stderr, the passt of Debian 12 goes into the background in spite of --foreground.
    argv = ["passt", "--foreground", "--stderr", "--one-off", "--quiet", "--socket", socket]
    if context.host.user == "root":
        # Started by root, it becomes nobody, and in Debian 12 then loses its socket at once. It drops its capabilities
        # and confines itself by seccomp and namespaces all the same.
        argv += ["--runas", "0"]
    for forward in network.forward:
        protocol, address, host_port, guest_port = split_forward(forward)
        argv += [f"--{protocol}-ports", f"{address or LOOPBACK}/{host_port}:{guest_port}"]
    return Companion(
        f"passt{index}", tuple(argv), socket, "Debian, Ubuntu, Fedora, openSUSE: the package passt; or use type: user"
    )


def _frontend(context: Context, index: int, network: Network) -> Iterator[Parameter]:
    path = ("networks", index)
    yield Parameter("", "virtio-net-pci", rule("network devices are virtio"))
    yield Parameter("id", f"net{index}-device", rule("position in networks"))
    yield Parameter("netdev", f"net{index}", rule("its backend"))
    mac = network.mac or derived_mac(context.profile.name, index)
    yield context.from_profile("mac", mac, *path, "mac", default="derived from the guest's name")
    yield Parameter("romfile", "", rule("an option ROM is code outside the measurement, and breaks under SEV"))
    yield from boot_index(context, f"net{index}")
    reason = context.why(*path, "iommu_platform", default="every virtio device")
    yield from virtio_parameters(reason, dma_api=network.iommu_platform)
