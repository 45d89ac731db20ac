"""Networks, by what is at the other end."""

# No postponed annotations: profile.validation looks at them, and to evaluate them takes longer than all else there.
from typing import Annotated, Literal

from msgspec import Meta

from sevlaunch.documents import matching
from sevlaunch.profile.fields import Forward, Mac
from sevlaunch.profile.model.base import Model

_INTERFACE, _INTERFACE_NAME = r"[^\s/:]{1,15}", "the name of a network interface, at most 15 characters"


class _Network(Model, frozen=True, kw_only=True):
    mac: Annotated[Mac | None, Meta(description="default: derived from the guest's name")] = None
    iommu_platform: Annotated[bool, Meta(description="DMA API; can't be off in an encrypted guest")] = True


class UserNetwork(_Network, frozen=True, kw_only=True):
    """QEMU's own user-mode network: needs no privileges."""

    type: Literal["user"]
    forward: Annotated[list[Forward], Meta(description="host ports that lead into the guest")] = []
    restrict: Annotated[bool, Meta(description="cut the guest off from the host and the outside")] = False


class TapNetwork(_Network, frozen=True, kw_only=True):
    """A tap interface that exists already."""

    type: Literal["tap"]
    interface: Annotated[str, matching(_INTERFACE, "name of the tap interface", wanted=_INTERFACE_NAME)]
    vhost: bool = False


class BridgeNetwork(_Network, frozen=True, kw_only=True):
    """A tap interface on a bridge, made by qemu-bridge-helper."""

    type: Literal["bridge"]
    bridge: Annotated[str, matching(_INTERFACE, "name of the bridge", wanted=_INTERFACE_NAME)]


class PasstNetwork(_Network, frozen=True, kw_only=True):
    """The user-mode network of passt, started with the guest."""

    type: Literal["passt"]
    forward: Annotated[list[Forward], Meta(description="host ports that lead into the guest")] = []


Network = UserNetwork | TapNetwork | BridgeNetwork | PasstNetwork
