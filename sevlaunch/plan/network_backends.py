"""What is behind a network device on the host, without helper programs."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from sevlaunch.plan.needs import NeededDevice, Needs
from sevlaunch.plan.option import Choice, Parameter, rule
from sevlaunch.profile.fields import split_forward
from sevlaunch.remedies import MODULES

LOOPBACK = "127.0.0.1"
TUN = "/dev/net/tun"
VHOST_NET = "/dev/vhost-net"


class Backend(Struct, frozen=True, kw_only=True):
    """What is behind a network device."""

    @property
    def needs(self) -> Needs:
        """What it asks of the host."""
        return Needs()

    def parameters(self) -> Iterator[Parameter]:
        """What only this kind of backend has."""
        raise NotImplementedError


class UserBackend(Backend, frozen=True, kw_only=True):
    """QEMU's own user-mode network. ``forwards`` are as in the profile."""

    restrict: Choice[bool]
    forwards: tuple[Choice[str], ...]

    def parameters(self) -> Iterator[Parameter]:
        """Isolation and forwards."""
        if self.restrict.value:
            yield self.restrict.parameter("restrict")
        for forward in self.forwards:
            protocol, address, host_port, guest_port = split_forward(forward.value)
            text = f"{protocol}:{address or LOOPBACK}:{host_port}-:{guest_port}"
            yield Parameter("hostfwd", text, forward.reason)


class TapBackend(Backend, frozen=True, kw_only=True):
    """A tap interface that is there."""

    interface: Choice[str]
    vhost: Choice[bool]

    @property
    def needs(self) -> Needs:
        """The device behind all tap interfaces, and with vhost the kernel's."""
        devices = [NeededDevice(TUN, "Tap interfaces are opened through it.", MODULES[TUN])]
        if self.vhost.value:
            devices.append(NeededDevice(VHOST_NET, "The kernel moves the packets (vhost).", MODULES[VHOST_NET]))
        return Needs(devices=tuple(devices))

    def parameters(self) -> Iterator[Parameter]:
        """The interface as it is."""
        yield self.interface.parameter("ifname")
        for key in ("script", "downscript"):
            yield Parameter(key, "no", rule("the interface is set up already"))
        if self.vhost.value:
            yield self.vhost.parameter("vhost")


class BridgeBackend(Backend, frozen=True, kw_only=True):
    """A tap interface that qemu-bridge-helper makes on a bridge."""

    bridge: Choice[str]

    @property
    def needs(self) -> Needs:
        """The helper, its device and its capabilities."""
        return Needs(
            devices=(NeededDevice(TUN, "qemu-bridge-helper makes a tap interface through it.", MODULES[TUN]),),
            capabilities=("CAP_NET_ADMIN",),
            set_uid_programs=("qemu-bridge-helper",),
        )

    def parameters(self) -> Iterator[Parameter]:
        """The bridge."""
        yield self.bridge.parameter("br")
