"""Clock, SMBIOS tables, files of fw_cfg, credentials, watchdog, panic device and further serial ports."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

from msgspec.structs import fields

from sevlaunch.plan.addresses import Address
from sevlaunch.plan.console import listening
from sevlaunch.plan.context import Context
from sevlaunch.plan.needs import NeededFile, Needs
from sevlaunch.plan.option import Choice, Option, Parameter, Reason, rule
from sevlaunch.plan.part import Part, PrivateFile
from sevlaunch.plan.places import SERIAL_SOCKET
from sevlaunch.profile.boot_values import IGNITION

# SMBIOS' number of a table, by the profile's name for it: DMTF DSP0134, 7.1 to 7.4 and 7.12.
_TABLES = {"bios": 0, "system": 1, "board": 2, "chassis": 3}
_OEM_STRINGS = 11


class ClockPlan(Part, frozen=True, kw_only=True):
    """``base``: what it shows at the start."""

    base: Choice[str]
    catch_up: Choice[bool]

    def options(self) -> Iterator[Option]:
        """-rtc."""
        slew = (Parameter("driftfix", "slew", self.catch_up.reason),) if self.catch_up.value else ()
        yield Option("-rtc", (self.base.parameter("base"), *slew))


class SmbiosPlan(Part, frozen=True, kw_only=True):
    """A table's number, and its values by their keys."""

    table: int
    values: tuple[tuple[str, Choice[str]], ...]

    def options(self) -> Iterator[Option]:
        """-smbios."""
        number = Parameter("type", str(self.table), self.values[0][1].reason)
        yield Option("-smbios", (number, *(value.parameter(key) for key, value in self.values)))


class FwCfgPlan(Part, frozen=True, kw_only=True):
    """A file of fw_cfg: a ``file`` of the host's, or ``text``."""

    name: Choice[str]
    file: Choice[str] | None
    text: Choice[str] | None
    remedy: str = "make it, or leave it out of fw_cfg"

    @property
    def needs(self) -> Needs:
        """QEMU reads the file at the start."""
        if self.file is None:
            return Needs()
        return Needs(files=(NeededFile(self.file.value, "file for fw_cfg", self.remedy),))

    def options(self) -> Iterator[Option]:
        """-fw_cfg."""
        content = (("file", self.file), ("string", self.text))
        yield Option(
            "-fw_cfg", (self.name.parameter("name"), *(value.parameter(key) for key, value in content if value))
        )


class CredentialsPlan(Part, frozen=True, kw_only=True):
    """Credentials that systemd finds in SMBIOS, each in a file, so that no command line has them."""

    wanted: tuple[Reason, ...]
    files: tuple[PrivateFile, ...]

    def options(self) -> Iterator[Option]:
        """-smbios."""
        for reason, file in zip(self.wanted, self.files, strict=True):
            number = Parameter("type", str(_OEM_STRINGS), rule("systemd looks into these"))
            yield Option("-smbios", (number, Parameter("path", file.path, reason)))


class WatchdogPlan(Part, frozen=True, kw_only=True):
    """``address``: of i6300esb, which is a PCI device; iTCO is part of the chipset."""

    model: Choice[str]
    action: Choice[str]
    address: Address | None

    def options(self) -> Iterator[Option]:
        """The device, or the chipset's own switched on, and what happens."""
        if self.address:
            yield Option("-device", (self.model.parameter(""), *self.address.parameters()))
        else:
            # QEMU's hw/isa/lpc_ich9.c: with the strap for "no reboot" nothing happens.
            yield Option("-global", (Parameter("ICH9-LPC.noreboot", "off", self.model.reason),))
        yield Option("-action", (self.action.parameter("watchdog"),))


class PanicPlan(Part, frozen=True, kw_only=True):
    """The device by which a guest's kernel tells that it gave up."""

    wanted: Reason

    def options(self) -> Iterator[Option]:
        """An I/O port, which guests of all types can reach."""
        yield Option("-device", (Parameter("", "pvpanic", self.wanted),))


class SerialPlan(Part, frozen=True, kw_only=True):
    """``index``: 1 is COM2. Programs connect to ``socket``."""

    wanted: Reason
    index: int
    socket: Path

    def options(self) -> Iterator[Option]:
        """The socket, and the port."""
        chardev = f"serial{self.index}"
        yield listening(chardev, self.socket, self.wanted)
        yield Option(
            "-device",
            (
                Parameter("", "isa-serial", self.wanted),
                Parameter("chardev", chardev, self.wanted),
                Parameter("index", str(self.index), rule("COM1 is for the console")),
            ),
        )


def resolve_board(context: Context) -> Iterator[Part]:
    """What the profile asks for of these."""
    profile = context.profile
    clock = profile.clock
    if clock.base != "utc" or clock.catch_up:
        yield ClockPlan(
            base=context.choice(clock.base, "clock", "base", default="QEMU's default"),
            catch_up=context.choice(clock.catch_up, "clock", "catch_up"),
        )
    yield from _smbios(context)
    for index, one in enumerate(profile.fw_cfg):
        yield FwCfgPlan(
            name=context.choice(one.name, "fw_cfg", index, "name"),
            file=context.choice_or_none(one.file, "fw_cfg", index, "file"),
            text=context.choice_or_none(one.text, "fw_cfg", index, "text"),
        )
    if profile.ignition is not None:
        yield FwCfgPlan(
            name=Choice(IGNITION, rule("where Ignition looks")),
            file=context.choice(profile.ignition, "ignition"),
            text=None,
            remedy=context.correct("ignition"),
        )
    if profile.credentials:
        yield _credentials(context)
    yield from _watchdog(context)
    if profile.panic:
        context.need_device("pvpanic", "panic")
        yield PanicPlan(wanted=context.why("panic"))
    for index in range(1, profile.serial_ports + 1):
        yield SerialPlan(
            wanted=context.why("serial_ports"), index=index, socket=context.qemu_folder / SERIAL_SOCKET.format(index)
        )


def _smbios(context: Context) -> Iterator[SmbiosPlan]:
    smbios = context.profile.smbios
    for name, number in _TABLES.items():
        table = getattr(smbios, name)
        keys = [field.name for field in fields(table) if getattr(table, field.name) is not None]
        if keys:
            values = ((key, context.choice(getattr(table, key), "smbios", name, key)) for key in keys)
            yield SmbiosPlan(table=number, values=tuple(values))
    if smbios.oem_strings:
        strings = enumerate(smbios.oem_strings)
        values = (("value", context.choice(text, "smbios", "oem_strings", index)) for index, text in strings)
        yield SmbiosPlan(table=_OEM_STRINGS, values=tuple(values))


def _credentials(context: Context) -> CredentialsPlan:
    files = []
    for index, (name, content) in enumerate(context.profile.credentials.items()):
        # systemd.system-credentials(7)
        text = f"io.systemd.credential.binary:{name}={base64.b64encode(content).decode()}"
        files.append(PrivateFile(str(context.folder / f"credential{index}"), text, secret=True))
    wanted = tuple(context.why("credentials", name) for name in context.profile.credentials)
    return CredentialsPlan(wanted=wanted, files=tuple(files))


def _watchdog(context: Context) -> Iterator[WatchdogPlan]:
    watchdog = context.profile.watchdog
    if watchdog is None:
        return
    machine, model = context.machine_type, watchdog.model
    if model == "auto":
        model = "itco" if machine.startswith("pc-q35-") else "i6300esb"
    elif model == "itco" and not machine.startswith("pc-q35-"):
        context.refuse(f"the chipset of {machine} has no iTCO", "watchdog", "model", hint="use i6300esb")
    if model == "i6300esb":
        context.need_device("i6300esb", "watchdog")
    yield WatchdogPlan(
        model=context.choice(model, "watchdog", "model", default=f"what {machine} has"),
        action=context.choice(watchdog.action, "watchdog", "action"),
        address=context.address("watchdog") if model == "i6300esb" else None,
    )
