"""What else is on the board: clock, SMBIOS tables, files of fw_cfg, watchdog, serial ports."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from sevlaunch.profile.fields import AbsolutePath, ClockBase, matching
from sevlaunch.profile.model.base import Model

_TEXT = matching(r"[^\x00-\x1f\x7f]{1,255}", wanted="1 to 255 printable characters")
SmbiosText = Annotated[str, _TEXT] | None


class Clock(Model, frozen=True, kw_only=True):
    """The guest's clocks."""

    base: Annotated[ClockBase, Meta(description="what the clock shows at the start: utc, localtime, or a time")] = "utc"
    catch_up: Annotated[bool, Meta(description="send the RTC's ticks again that the guest missed; for Windows")] = False
    hpet: Annotated[bool, Meta(description="the high precision event timer; off: one timer less to emulate")] = True


class SmbiosBios(Model, frozen=True, kw_only=True):
    """SMBIOS type 0: the firmware's."""

    vendor: SmbiosText = None
    version: SmbiosText = None
    date: SmbiosText = None


class SmbiosSystem(Model, frozen=True, kw_only=True):
    """SMBIOS type 1: the system. Its UUID is the profile's uuid."""

    manufacturer: SmbiosText = None
    product: SmbiosText = None
    version: SmbiosText = None
    serial: SmbiosText = None
    sku: SmbiosText = None
    family: SmbiosText = None


class SmbiosBoard(Model, frozen=True, kw_only=True):
    """SMBIOS type 2: the base board."""

    manufacturer: SmbiosText = None
    product: SmbiosText = None
    version: SmbiosText = None
    serial: SmbiosText = None
    asset: SmbiosText = None
    location: SmbiosText = None


class SmbiosChassis(Model, frozen=True, kw_only=True):
    """SMBIOS type 3: the chassis."""

    manufacturer: SmbiosText = None
    version: SmbiosText = None
    serial: SmbiosText = None
    asset: SmbiosText = None
    sku: SmbiosText = None


class Smbios(Model, frozen=True, kw_only=True):
    """Tables that tell the guest what machine it is on."""

    bios: SmbiosBios = SmbiosBios()
    system: SmbiosSystem = SmbiosSystem()
    board: SmbiosBoard = SmbiosBoard()
    chassis: SmbiosChassis = SmbiosChassis()
    oem_strings: Annotated[list[Annotated[str, _TEXT]], Meta(description="SMBIOS type 11")] = []


class FwCfgFile(Model, frozen=True, kw_only=True):
    """A file that firmware and guest read through QEMU's fw_cfg device."""

    name: Annotated[
        str,
        # QEMU's hw/nvram/fw_cfg.c, FW_CFG_MAX_FILE_PATH, with its final NUL.
        matching(
            r"opt/[!-~]{1,51}",
            "such as opt/org.example/key",
            wanted="opt/ and at most 51 letters, digits and signs behind it",
        ),
    ]
    file: Annotated[AbsolutePath | None, Meta(description="what is in it; or else: text")] = None
    text: Annotated[str, Meta(min_length=1, max_length=1 << 16)] | None = None


class Watchdog(Model, frozen=True, kw_only=True):
    """A watchdog: what happens when the guest does not reset it in time."""

    model: Annotated[
        Literal["auto", "itco", "i6300esb"], Meta(description="auto: itco on q35, which has it, otherwise i6300esb")
    ] = "auto"
    action: Annotated[
        Literal["reset", "shutdown", "poweroff", "inject-nmi", "pause", "none"],
        Meta(description="reset: as a reboot of the guest"),
    ] = "reset"
