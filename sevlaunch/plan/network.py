"""Network devices, one part each, and what is behind them on the host."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from sevlaunch.plan.addresses import Address
from sevlaunch.plan.boot import boot_index
from sevlaunch.plan.context import Context
from sevlaunch.plan.needs import Needs
from sevlaunch.plan.network_backends import Backend, BridgeBackend, TapBackend, UserBackend
from sevlaunch.plan.option import Choice, Option, Parameter, rule
from sevlaunch.plan.part import Part, virtio_parameters
from sevlaunch.profile.model import BridgeNetwork, Network, TapNetwork, UserNetwork

# QEMU's names of the backends.
_BACKENDS = {"user": "user", "tap": "tap", "bridge": "bridge", "passt": "stream"}


class NetworkPlan(Part, frozen=True, kw_only=True):
    """A network, the ``index``-th of the guest. ``kind``: QEMU's name of the backend."""

    index: int
    kind: Choice[str]
    backend: Backend
    mac: Choice[str]
    boot_index: Choice[int] | None
    address: Address
    dma_api: Choice[bool]

    @property
    def name(self) -> str:
        """The name in boot.order, and of QEMU's backend."""
        return f"net{self.index}"

    @property
    def needs(self) -> Needs:
        """Those of the backend."""
        return self.backend.needs

    def options(self) -> Iterator[Option]:
        """The backend, then the device."""
        identity = Parameter("id", self.name, rule("position in networks"))
        yield Option("-netdev", (self.kind.parameter(""), identity, *self.backend.parameters()))
        boot = (self.boot_index.parameter("bootindex"),) if self.boot_index else ()
        yield Option(
            "-device",
            (
                Parameter("", "virtio-net-pci", rule("network devices are virtio")),
                Parameter("id", f"{self.name}-device", rule("position in networks")),
                Parameter("netdev", self.name, rule("its backend")),
                self.mac.parameter("mac"),
                Parameter("romfile", "", rule("an option ROM is code outside the measurement, and breaks under SEV")),
                *boot,
                *self.address.parameters(),
                *virtio_parameters(self.dma_api),
            ),
        )


def resolve_networks(context: Context) -> tuple[NetworkPlan, ...]:
    """Networks for the profile."""
    return tuple(_network(context, index, network) for index, network in enumerate(context.profile.networks))


def derived_mac(name: str, index: int) -> str:
    """A MAC address in QEMU's range that is always the same for a guest's name and the network's position."""
    digest = hashlib.sha256(f"{name}\0{index}".encode()).digest()
    return "52:54:00:" + ":".join(f"{byte:02x}" for byte in digest[:3])


def _network(context: Context, index: int, network: Network) -> NetworkPlan:
    path = ("networks", index)
    kind = _BACKENDS[network.type]
    if kind not in context.qemu.netdevs and context.qemu.netdevs:
        context.lack(
            f"QEMU {context.qemu.version} has no network backend {kind!r}, which networks.{index} needs",
            hint="install a QEMU that has it, or use another type of network",
        )
    mac = network.mac or derived_mac(context.profile.name, index)
    return NetworkPlan(
        index=index,
        kind=context.choice(kind, *path, "type"),
        backend=_backend(context, index, network),
        mac=context.choice(mac, *path, "mac", default="derived from the guest's name"),
        boot_index=boot_index(context, f"net{index}"),
        address=context.address("network", index, *path, instead="leave some networks out"),
        dma_api=context.choice(network.iommu_platform, *path, "iommu_platform", default="every virtio device"),
    )


def _backend(context: Context, index: int, network: Network) -> Backend:
    path = ("networks", index)
    if isinstance(network, UserNetwork):
        return UserBackend(
            restrict=context.choice(network.restrict, *path, "restrict"),
            forwards=tuple(
                context.choice(forward, *path, "forward", position) for position, forward in enumerate(network.forward)
            ),
        )
    if isinstance(network, TapNetwork):
        return TapBackend(
            interface=context.choice(network.interface, *path, "interface"),
            vhost=context.choice(network.vhost, *path, "vhost"),
        )
    if isinstance(network, BridgeNetwork):
        return BridgeBackend(bridge=context.choice(network.bridge, *path, "bridge"))
    # Few guests have it.
    from sevlaunch.plan.passt import passt_backend

    return passt_backend(context, index, network)
