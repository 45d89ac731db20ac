"""The way to the guest's screen, keyboard and pointer."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from sevlaunch.profile.fields import IpAddress
from sevlaunch.profile.model.base import Model

# Where the displays of VNC begin.
FIRST_PORT = 5900


class NoDisplay(Model, frozen=True, kw_only=True):
    """Nobody sees the screen."""

    type: Literal["none"] = "none"


class _Display(Model, frozen=True, kw_only=True):
    address: Annotated[
        IpAddress | None, Meta(description="listen there, without a password; default: a socket in the guest's folder")
    ] = None
    port: Annotated[int, Meta(ge=FIRST_PORT, le=65535, description="of address; default: 5900")] | None = None
    tablet: Annotated[bool, Meta(description="a USB tablet: the pointer is where that of the user is")] = True


class VncDisplay(_Display, frozen=True, kw_only=True):
    """QEMU's VNC server."""

    type: Literal["vnc"]


class SpiceDisplay(_Display, frozen=True, kw_only=True):
    """QEMU's SPICE server."""

    type: Literal["spice"]


Display = NoDisplay | VncDisplay | SpiceDisplay
