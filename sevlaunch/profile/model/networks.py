"""Networks, by what is at the other end."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from sevlaunch.profile.fields import Forward, Mac, auto_or_number, matching
from sevlaunch.profile.model.base import Model

_INTERFACE, _INTERFACE_NAME = r"[^\s/:]{1,15}", "the name of a network interface, at most 15 characters"
# drivers/net/tun.c and tap.c of Linux: MAX_TAP_QUEUES.
_MAX_QUEUES = 256

Queues = Annotated[int, Meta(ge=1, le=_MAX_QUEUES, description="pairs of queues; the guest uses one for each vCPU")]
_MAX_PORT = 65535
Forwards = Annotated[
    list[Forward], Meta(description="host ports that lead into the guest; port 0 of the host: a free one")
]
SshPort = Annotated[
    Literal["auto"] | int,
    *auto_or_number(1, _MAX_PORT),
    Meta(description="port of 127.0.0.1 that leads to the guest's SSH server; auto: a free one"),
]
Vhost = Annotated[bool, Meta(description="the host's kernel moves the packets, through /dev/vhost-net")]


class _Network(Model, frozen=True, kw_only=True):
    mac: Annotated[Mac | None, Meta(description="default: derived from the guest's name")] = None
    model: Annotated[Literal["virtio", "e1000e"], Meta(description="the device that the guest sees")] = "virtio"
    mtu: (
        Annotated[int, Meta(ge=68, le=65535, description="largest packet in bytes, which the guest is told")] | None
    ) = None
    slot: Annotated[
        Annotated[int, Meta(ge=0, le=255)] | None,
        Meta(description="place among the networks, from 0; default: as it stands in the list"),
    ] = None
    iommu_platform: Annotated[bool | None, Meta(description="DMA API; default: that of the guest")] = None


class UserNetwork(_Network, frozen=True, kw_only=True):
    """QEMU's own user-mode network: needs no privileges."""

    type: Literal["user"]
    ssh: SshPort | None = None
    forward: Forwards = []
    restrict: Annotated[bool, Meta(description="cut the guest off from the host and the outside")] = False


class TapNetwork(_Network, frozen=True, kw_only=True):
    """A tap interface that exists already, by its name or as open descriptors of the program that starts the guest."""

    type: Literal["tap"]
    interface: Annotated[str, matching(_INTERFACE, "name of the tap interface", wanted=_INTERFACE_NAME)] | None = None
    descriptors: Annotated[
        list[Annotated[int, Meta(ge=3, le=(1 << 20) - 1)]],
        Meta(description="instead of interface: numbers of open descriptors of a tap interface, one for each queue"),
    ] = []
    queues: Queues = 1
    vhost: Vhost = False


class BridgeNetwork(_Network, frozen=True, kw_only=True):
    """A tap interface on a bridge, made by qemu-bridge-helper."""

    type: Literal["bridge"]
    bridge: Annotated[str, matching(_INTERFACE, "name of the bridge", wanted=_INTERFACE_NAME)]
    vhost: Vhost = False


class MacvtapNetwork(_Network, frozen=True, kw_only=True):
    """A macvtap interface that exists already."""

    type: Literal["macvtap"]
    interface: Annotated[str, matching(_INTERFACE, "name of the macvtap interface", wanted=_INTERFACE_NAME)]
    queues: Queues = 1
    vhost: Vhost = False


class PasstNetwork(_Network, frozen=True, kw_only=True):
    """The user-mode network of passt, started with the guest."""

    type: Literal["passt"]
    ssh: SshPort | None = None
    forward: Forwards = []
    host_access: Annotated[
        bool, Meta(description="the gateway's address leads to the host's own services, those of 127.0.0.1 included")
    ] = True
    vhost_user: Annotated[
        bool, Meta(description="packets go through memory that passt maps, which is quicker (passt of 2025 and newer)")
    ] = False


Network = UserNetwork | TapNetwork | BridgeNetwork | MacvtapNetwork | PasstNetwork
