"""VNC and SPICE, on a socket that is the user's own, or on an address that the profile names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sevlaunch.plan.addresses import Address
from sevlaunch.plan.context import Context
from sevlaunch.plan.option import Choice, Option, Parameter, rule
from sevlaunch.plan.part import Part
from sevlaunch.plan.places import DISPLAY_SOCKET
from sevlaunch.profile.model import FIRST_PORT, SpiceDisplay, VncDisplay


class DisplayPlan(Part, frozen=True, kw_only=True):
    """``kind``: vnc or spice, on ``socket``, or on ``address`` and ``port``. ``tablet``: where its controller is."""

    kind: Choice[str]
    socket: Path
    address: Choice[str] | None
    port: Choice[int]
    tablet: Address | None

    def options(self) -> Iterator[Option]:
        """The server, and the tablet."""
        yield self._vnc() if self.kind.value == "vnc" else self._spice()
        if self.tablet:
            why = rule("a tablet, unlike a mouse, has the pointer where the user's is")
            xhci = (Parameter("", "qemu-xhci", why), Parameter("id", "usb", why), *self.tablet.parameters())
            yield Option("-device", xhci)
            yield Option("-device", (Parameter("", "usb-tablet", why), Parameter("bus", "usb.0", why)))

    def _vnc(self) -> Option:
        if self.address is None:
            return Option("-vnc", (Parameter("", f"unix:{self.socket}", self.kind.reason),))
        host = f"[{self.address.value}]" if ":" in self.address.value else self.address.value
        # QEMU counts the displays from this port on.
        return Option("-vnc", (Parameter("", f"{host}:{self.port.value - FIRST_PORT}", self.address.reason),))

    def _spice(self) -> Option:
        no_password = Parameter("disable-ticketing", "on", rule("no password: who reaches it may use it"))
        if self.address is None:
            why = self.kind.reason
            return Option(
                "-spice", (Parameter("unix", "on", why), Parameter("addr", str(self.socket), why), no_password)
            )
        return Option("-spice", (self.address.parameter("addr"), self.port.parameter("port"), no_password))


def resolve_display(context: Context, display: VncDisplay | SpiceDisplay) -> Iterator[DisplayPlan]:
    """The display that the profile asks for."""
    if isinstance(display, SpiceDisplay):
        # QEMU has qxl only where it has SPICE.
        context.need_device("qxl", "display: spice")
    if display.tablet:
        context.need_device("usb-tablet", "display.tablet")
    yield DisplayPlan(
        kind=context.choice(display.type, "display", "type"),
        socket=context.qemu_folder / DISPLAY_SOCKET.format(display.type),
        address=context.choice_or_none(display.address, "display", "address"),
        port=context.choice(display.port or FIRST_PORT, "display", "port"),
        tablet=context.address("usb") if display.tablet else None,
    )
