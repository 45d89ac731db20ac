"""Further channels between the guest and programs of the host: virtio-serial ports by their names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sevlaunch.plan.addresses import Address
from sevlaunch.plan.console import PORTS_BUS, listening, serial_bus
from sevlaunch.plan.context import Context
from sevlaunch.plan.option import Choice, Option, Parameter, rule
from sevlaunch.plan.part import Part
from sevlaunch.plan.places import CHANNEL_SOCKET
from sevlaunch.profile.device_rules import SPICE_CHANNEL


class ChannelPlan(Part, frozen=True, kw_only=True):
    """The ``index``-th port, by its ``name`` in the guest. ``socket``: where programs connect; None: it is SPICE's.

    ``controller``: the address of the ports' controller, for the first of them, unless the agent's is there.
    """

    index: int
    name: Choice[str]
    socket: Path | None
    controller: Address | None
    dma_api: Choice[bool]

    def options(self) -> Iterator[Option]:
        """The socket, or the end at SPICE, and the port."""
        why = self.name.reason
        if self.controller:
            yield serial_bus(PORTS_BUS, self.controller, self.dma_api, why)
        chardev = f"port{self.index}"
        if self.socket:
            yield listening(chardev, self.socket, why)
        else:
            # ui/spice-core.c and chardev/spice.c: the agent's end of a SPICE connection.
            agent = Parameter("name", "vdagent", rule("the copy buffer, and the size of the screen"))
            yield Option("-chardev", (Parameter("", "spicevmc", why), Parameter("id", chardev, why), agent))
        yield Option(
            "-device",
            (
                Parameter("", "virtserialport", why),
                Parameter("bus", f"{PORTS_BUS}.0", why),
                Parameter("chardev", chardev, why),
                self.name.parameter("name"),
            ),
        )


def resolve_channels(context: Context) -> Iterator[ChannelPlan]:
    """The channels, in their order."""
    controller = None if context.profile.guest_agent else context.address("agent")
    for index, channel in enumerate(context.profile.channels):
        yield ChannelPlan(
            index=index,
            name=context.choice(channel.name, "channels", index, "name"),
            socket=None if channel.name == SPICE_CHANNEL else context.qemu_folder / CHANNEL_SOCKET.format(index),
            controller=controller if index == 0 else None,
            dma_api=context.dma_api(),
        )
