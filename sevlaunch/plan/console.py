"""The guest's console, and the channel of its agent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sevlaunch.plan.addresses import Address
from sevlaunch.plan.context import Context
from sevlaunch.plan.needs import NeededDevice, Needs
from sevlaunch.plan.option import Choice, Option, Parameter, Reason, rule
from sevlaunch.plan.part import Part, virtio_parameters
from sevlaunch.plan.places import AGENT_SOCKET, CONSOLE_LOG, CONSOLE_SOCKET, JOURNAL_SOCKET

# The controller of the agent's port, and of further ones.
PORTS_BUS = "agent-bus"


class ConsolePlan(Part, frozen=True, kw_only=True):
    """``kind``: serial or virtio. QEMU listens on ``socket`` and writes all that comes into ``log``.

    ``log_size``: bytes of it that are kept; ``journal``: its lines go into the journal, too. ``address``: of the virtio
    console's bus.
    """

    kind: Choice[str]
    socket: Path
    log: Path
    log_size: int
    journal: bool
    address: Address | None
    dma_api: Choice[bool]

    @property
    def needs(self) -> Needs:
        """The journal, where it is to have the console's lines."""
        why = "The console's lines go into the journal."
        remedy = "start systemd-journald, or leave console_journal out"
        journal = NeededDevice(JOURNAL_SOCKET, why, remedy, what="socket", by_launcher=True)
        return Needs(devices=(journal,)) if self.journal else Needs()

    def options(self) -> Iterator[Option]:
        """The socket, and the port or device."""
        why = rule("`sevlaunch console` and `logs`")
        yield listening("console", self.socket, why, Parameter("logfile", str(self.log), why))
        if self.address is None:
            yield Option("-serial", (Parameter("", "chardev:console", self.kind.reason),), verbatim=True)
            return
        yield serial_bus("console-bus", self.address, self.dma_api, self.kind.reason)
        port = (Parameter("", "virtconsole", self.kind.reason), Parameter("chardev", "console", why))
        yield Option("-device", port)


class AgentPlan(Part, frozen=True, kw_only=True):
    """The QEMU guest agent answers on ``socket``."""

    wanted: Reason
    socket: Path
    address: Address
    dma_api: Choice[bool]

    def options(self) -> Iterator[Option]:
        """The socket, and the port that the agent opens."""
        why = self.wanted
        yield listening("agent", self.socket, why)
        yield serial_bus(PORTS_BUS, self.address, self.dma_api, why)
        yield Option(
            "-device",
            (
                Parameter("", "virtserialport", why),
                Parameter("bus", f"{PORTS_BUS}.0", why),
                Parameter("chardev", "agent", why),
                Parameter("name", "org.qemu.guest_agent.0", rule("the name that the agent looks for")),
            ),
        )


def resolve_console(context: Context) -> Iterator[ConsolePlan]:
    """The console, where there is to be one."""
    kind = context.profile.console
    if kind != "none":
        yield ConsolePlan(
            kind=context.choice(kind, "console"),
            socket=context.qemu_folder / CONSOLE_SOCKET,
            log=context.state_folder / CONSOLE_LOG,
            log_size=context.profile.console_log,
            journal=context.profile.console_journal,
            address=context.address("console") if kind == "virtio" else None,
            dma_api=context.dma_api(),
        )


def resolve_agent(context: Context) -> Iterator[AgentPlan]:
    """The agent's channel, where it is asked for."""
    if context.profile.guest_agent:
        yield AgentPlan(
            wanted=context.why("guest_agent"),
            socket=context.qemu_folder / AGENT_SOCKET,
            address=context.address("agent"),
            dma_api=context.dma_api(),
        )


def listening(name: str, socket: Path, why: Reason, *further: Parameter) -> Option:
    """A character device on whose socket QEMU listens, without waiting for anybody."""
    return Option(
        "-chardev",
        (
            Parameter("", "socket", why),
            Parameter("id", name, why),
            Parameter("path", str(socket), why),
            Parameter("server", "on", why),
            Parameter("wait", "off", why),
            *further,
        ),
    )


def serial_bus(name: str, address: Address, dma_api: Choice[bool], why: Reason) -> Option:
    """A controller of virtio-serial ports."""
    identity = (Parameter("", "virtio-serial-pci", why), Parameter("id", name, why))
    return Option("-device", (*identity, *address.parameters(), *virtio_parameters(dma_api)))
