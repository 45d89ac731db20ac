"""Network devices, one part each, and what is behind them on the host."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from msgspec.structs import replace

from sevlaunch.plan.addresses import Address
from sevlaunch.plan.boot import boot_index
from sevlaunch.plan.context import Context
from sevlaunch.plan.needs import Descriptor, Needs
from sevlaunch.plan.network_backends import (
    Backend,
    BridgeBackend,
    HandedBackend,
    MacvtapBackend,
    TapBackend,
    UserBackend,
    forwards,
    ssh_port,
)
from sevlaunch.plan.option import Choice, Option, Parameter, rule
from sevlaunch.plan.part import Part, virtio_parameters
from sevlaunch.profile.model import BridgeNetwork, MacvtapNetwork, Network, PasstNetwork, TapNetwork, UserNetwork
from sevlaunch.profile.network_rules import mac_addresses, queues_of
from sevlaunch.profile.seats import network_slots

# QEMU's names of the backends.
_BACKENDS = {"user": "user", "tap": "tap", "bridge": "tap", "macvtap": "tap", "passt": "stream"}
_DEVICES = {"virtio": "virtio-net-pci", "e1000e": "e1000e"}
_NO_DMA_API = Choice(False, rule("passt does not know the DMA API"))


class NetworkPlan(Part, frozen=True, kw_only=True):
    """A network, the ``index``-th of the guest. ``kind``: QEMU's name of the backend; ``queues``: pairs of them."""

    index: int
    kind: Choice[str]
    backend: Backend
    model: Choice[str]
    mac: Choice[str]
    mtu: Choice[int] | None
    queues: Choice[int]
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
        yield from self.backend.options()
        yield Option("-netdev", (self.kind.parameter(""), identity, *self.backend.parameters()))
        boot = (self.boot_index.parameter("bootindex"),) if self.boot_index else ()
        yield Option(
            "-device",
            (
                Parameter("", _DEVICES[self.model.value], self.model.reason),
                Parameter("id", f"{self.name}-device", rule("position in networks")),
                Parameter("netdev", self.name, rule("its backend")),
                self.mac.parameter("mac"),
                Parameter("romfile", "", rule("an option ROM is code outside the measurement, and breaks under SEV")),
                *boot,
                *self.address.parameters(),
                *(self._virtio() if self.model.value == "virtio" else ()),
            ),
        )

    def _virtio(self) -> Iterator[Parameter]:
        if self.mtu:
            yield self.mtu.parameter("host_mtu")
        if self.queues.value > 1:
            yield Parameter("mq", "on", self.queues.reason)
            # hw/virtio/virtio-pci.c: one for each queue, one for the control queue, one for changes of configuration.
            yield Parameter("vectors", str(2 * self.queues.value + 2), rule("an interrupt for each queue"))
        yield from virtio_parameters(self.dma_api)


def resolve_networks(context: Context) -> tuple[NetworkPlan, ...]:
    """Networks for the profile."""
    networks = context.profile.networks
    macs, places = mac_addresses(context.profile), network_slots(networks)
    return tuple(
        _network(context, index, network, macs[index], places[index]) for index, network in enumerate(networks)
    )


def with_descriptors(networks: Sequence[NetworkPlan], numbers: Mapping[int, int]) -> tuple[NetworkPlan, ...]:
    """The networks with other numbers for the descriptors that QEMU is handed: those that they really have."""
    return tuple(_renumbered(network, numbers) for network in networks)


def _renumbered(network: NetworkPlan, numbers: Mapping[int, int]) -> NetworkPlan:
    backend = network.backend
    if not isinstance(backend, HandedBackend):
        return network
    handed = tuple(replace(descriptor, number=numbers[descriptor.number]) for descriptor in backend.handed)
    return replace(network, backend=replace(backend, handed=handed))


def _network(context: Context, index: int, network: Network, mac: str, place: int) -> NetworkPlan:
    path = ("networks", index)
    vhost_user = isinstance(network, PasstNetwork) and network.vhost_user
    kind = "vhost-user" if vhost_user else _BACKENDS[network.type]
    if kind not in context.qemu.netdevs and context.qemu.netdevs:
        context.lack(
            f"QEMU {context.qemu.version} has no network backend {kind!r}, which networks.{index} needs",
            hint="install a QEMU that has it, or use another type of network",
        )
    context.need_device(_DEVICES[network.model], f"networks.{index}")
    return NetworkPlan(
        index=index,
        kind=context.choice(kind, *path, "type"),
        backend=_backend(context, index, network, mac),
        model=context.choice(network.model, *path, "model", default="network devices are virtio"),
        mac=context.choice(mac, *path, "mac", default="derived from the guest's name"),
        mtu=context.choice_or_none(network.mtu, *path, "mtu"),
        queues=_queues(context, index, network),
        boot_index=boot_index(context, f"net{index}"),
        address=context.address("network", place),
        dma_api=_NO_DMA_API if vhost_user else context.dma_api(network.iommu_platform, *path, "iommu_platform"),
    )


def _queues(context: Context, index: int, network: Network) -> Choice[int]:
    key = "descriptors" if isinstance(network, TapNetwork) and network.descriptors else "queues"
    return context.choice(queues_of(network), "networks", index, key)


def _backend(context: Context, index: int, network: Network, mac: str) -> Backend:
    path = ("networks", index)
    if isinstance(network, UserNetwork):
        return UserBackend(
            restrict=context.choice(network.restrict, *path, "restrict"),
            ssh=ssh_port(context, index, network),
            forwards=forwards(context, index, network),
        )
    if isinstance(network, (TapNetwork, BridgeNetwork, MacvtapNetwork)):
        return _tap(context, index, network, mac)
    # Few guests have it.
    from sevlaunch.plan.passt import passt_backend

    return passt_backend(context, index, network)


def _tap(context: Context, index: int, network: TapNetwork | BridgeNetwork | MacvtapNetwork, mac: str) -> Backend:
    path = ("networks", index)
    vhost = context.choice(network.vhost, *path, "vhost")
    if isinstance(network, BridgeNetwork):
        return BridgeBackend(
            wanted=context.choice(network.bridge, *path, "bridge"),
            handed=(Descriptor(next(context.descriptors), "bridge", network.bridge),),
            vhost=vhost,
            mtu=network.mtu,
        )
    if isinstance(network, MacvtapNetwork):
        return MacvtapBackend(
            wanted=context.choice(network.interface, *path, "interface"),
            handed=tuple(
                Descriptor(next(context.descriptors), "macvtap", network.interface) for _ in range(network.queues)
            ),
            vhost=vhost,
            mac=mac,
            mtu=network.mtu,
        )
    if network.interface is None:
        return HandedBackend(
            wanted=context.choice("given", *path, "descriptors"),
            handed=tuple(Descriptor(number, "given") for number in network.descriptors),
            vhost=vhost,
        )
    return TapBackend(
        interface=context.choice(network.interface, *path, "interface"),
        queues=context.choice(network.queues, *path, "queues"),
        vhost=vhost,
        mtu=network.mtu,
    )
