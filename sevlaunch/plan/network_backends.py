"""What is behind a network device on the host, without helper programs."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from sevlaunch.plan.context import Context
from sevlaunch.plan.needs import Descriptor, NeededDevice, NeededInterface, NeededProgram, Needs, merged
from sevlaunch.plan.option import Choice, Option, Parameter, rule
from sevlaunch.ports import ForwardInfo
from sevlaunch.profile.fields import split_forward
from sevlaunch.profile.model import PasstNetwork, UserNetwork
from sevlaunch.profile.network_rules import LOOPBACK
from sevlaunch.remedies import MODULES

# Where an SSH server listens in a guest.
SSH_PORT = 22
TUN = "/dev/net/tun"
VHOST_NET = "/dev/vhost-net"


# Where Debian and Ubuntu, Fedora and openSUSE have it: outside PATH.
BRIDGE_HELPER = NeededProgram(
    "qemu-bridge-helper",
    "Debian, Ubuntu: qemu-system-common; Fedora: qemu-common; openSUSE: qemu-tools",
    ("/usr/lib/qemu/qemu-bridge-helper", "/usr/libexec/qemu-bridge-helper"),
    gains_rights=True,
)


class Backend(Struct, frozen=True, kw_only=True):
    """What is behind a network device."""

    @property
    def descriptors(self) -> tuple[Descriptor, ...]:
        """What the launcher hands QEMU open."""
        return ()

    @property
    def ssh_forward(self) -> ForwardInfo | None:
        """The port of the host that leads to the guest's SSH server; port 0: a free one, which QEMU takes."""
        return None

    @property
    def forwarded(self) -> tuple[ForwardInfo, ...]:
        """All ports of the host that lead into the guest, that for SSH first; likewise."""
        return ()

    @property
    def needs(self) -> Needs:
        """What it asks of the host."""
        return Needs()

    def options(self) -> Iterator[Option]:
        """What goes before the backend."""
        yield from ()

    def parameters(self) -> Iterator[Parameter]:
        """What only this kind of backend has."""
        raise NotImplementedError


class ForwardingBackend(Backend, frozen=True, kw_only=True):
    """A user-mode network. ``forwards`` are as in the profile; ``ssh``: the host's port for SSH, 0: a free one."""

    ssh: Choice[int] | None
    forwards: tuple[Choice[str], ...]

    @property
    def ssh_forward(self) -> ForwardInfo | None:
        """The port for SSH."""
        return ForwardInfo("tcp", LOOPBACK, self.ssh.value, SSH_PORT) if self.ssh else None

    @property
    def forwarded(self) -> tuple[ForwardInfo, ...]:
        """All ports."""
        return tuple(forward.value for forward in self.all_forwards)

    @property
    def all_forwards(self) -> Iterator[Choice[ForwardInfo]]:
        """The same with their reasons."""
        if self.ssh and self.ssh_forward:
            yield Choice(self.ssh_forward, self.ssh.reason)
        for forward in self.forwards:
            protocol, address, host_port, guest_port = split_forward(forward.value)
            yield Choice(ForwardInfo(protocol, address or LOOPBACK, host_port, guest_port), forward.reason)


class UserBackend(ForwardingBackend, frozen=True, kw_only=True):
    """QEMU's own user-mode network."""

    restrict: Choice[bool]

    def parameters(self) -> Iterator[Parameter]:
        """Isolation and forwards."""
        if self.restrict.value:
            yield self.restrict.parameter("restrict")
        for forward in self.all_forwards:
            one = forward.value
            yield Parameter("hostfwd", f"{one.protocol}:{one.host}:{one.port}-:{one.guest_port}", forward.reason)


def ssh_port(context: Context, index: int, network: UserNetwork | PasstNetwork) -> Choice[int] | None:
    """The port for SSH of the ``index``-th network."""
    port = 0 if network.ssh == "auto" else network.ssh
    return context.choice_or_none(port, "networks", index, "ssh")


def forwards(context: Context, index: int, network: UserNetwork | PasstNetwork) -> tuple[Choice[str], ...]:
    """The other forwards of the ``index``-th network."""
    path = ("networks", index, "forward")
    return tuple(context.choice(forward, *path, position) for position, forward in enumerate(network.forward))


class TapBackend(Backend, frozen=True, kw_only=True):
    """A tap interface that is there, which QEMU opens by its name."""

    interface: Choice[str]
    queues: Choice[int]
    vhost: Choice[bool]
    mtu: int | None

    @property
    def needs(self) -> Needs:
        """The interface, the device behind all tap interfaces, and with vhost the kernel's."""
        name, queues = self.interface.value, self.queues.value
        several = " multi_queue" if queues > 1 else ""
        make = f"ip tuntap add dev {name} mode tap user $USER{several} && ip link set {name} up"
        return Needs(
            devices=(NeededDevice(TUN, "Tap interfaces are opened through it.", MODULES[TUN]), *_vhost(self.vhost)),
            interfaces=(NeededInterface(name, "tap", make, queues, mtu=self.mtu),),
        )

    def parameters(self) -> Iterator[Parameter]:
        """The interface as it is."""
        yield self.interface.parameter("ifname")
        for key in ("script", "downscript"):
            yield Parameter(key, "no", rule("the interface is set up already"))
        if self.queues.value > 1:
            yield self.queues.parameter("queues")
        yield from _vhost_parameter(self.vhost)


class HandedBackend(Backend, frozen=True, kw_only=True):
    """A tap interface that QEMU is handed open, a descriptor for each queue; ``wanted`` says which."""

    wanted: Choice[str]
    handed: tuple[Descriptor, ...]
    vhost: Choice[bool]

    @property
    def descriptors(self) -> tuple[Descriptor, ...]:
        """One for each queue."""
        return self.handed

    @property
    def needs(self) -> Needs:
        """The descriptors, and with vhost the kernel's device."""
        return Needs(devices=tuple(_vhost(self.vhost)), descriptors=self.handed)

    def parameters(self) -> Iterator[Parameter]:
        """The numbers of the descriptors."""
        numbers = ":".join(str(descriptor.number) for descriptor in self.handed)
        yield Parameter("fd" if len(self.handed) == 1 else "fds", numbers, self.wanted.reason)
        yield from _vhost_parameter(self.vhost)


class BridgeBackend(HandedBackend, frozen=True, kw_only=True):
    """A tap interface that qemu-bridge-helper makes on a bridge.

    The launcher runs the helper: QEMU's sandbox would take the helper's rights away from an ordinary user's.
    """

    mtu: int | None

    @property
    def needs(self) -> Needs:
        """The helper, its device and its capability, beside what is handed over."""
        bridge = self.wanted.value
        why = "qemu-bridge-helper makes a tap interface through it."
        return merged(
            (
                super().needs,
                Needs(
                    devices=(NeededDevice(TUN, why, MODULES[TUN], by_launcher=True),),
                    programs=(BRIDGE_HELPER,),
                    interfaces=(NeededInterface(bridge, "bridge", f"ip link add {bridge} type bridge", mtu=self.mtu),),
                    capabilities=("CAP_NET_ADMIN",),
                ),
            )
        )


class MacvtapBackend(HandedBackend, frozen=True, kw_only=True):
    """A macvtap interface that is there. ``mac``: the guest's address, which has to be the interface's."""

    mac: str
    mtu: int | None

    @property
    def needs(self) -> Needs:
        """The interface, beside what is handed over."""
        name = self.wanted.value
        make = f"ip link add link INTERFACE name {name} address {self.mac} type macvtap mode bridge"
        interface = NeededInterface(name, "macvtap", make, len(self.handed), self.mac, self.mtu)
        return merged((super().needs, Needs(interfaces=(interface,))))


def _vhost(wanted: Choice[bool]) -> Iterator[NeededDevice]:
    if wanted.value:
        yield NeededDevice(VHOST_NET, "The kernel moves the packets (vhost).", MODULES[VHOST_NET])


def _vhost_parameter(wanted: Choice[bool]) -> Iterator[Parameter]:
    if wanted.value:
        yield wanted.parameter("vhost")
