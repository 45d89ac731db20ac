"""The plan of one guest: every choice made, each with its reason."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from msgspec import Struct

from sevlaunch.guest_type import GuestType
from sevlaunch.plan.companion import Companion
from sevlaunch.plan.firmware import FirmwarePlan
from sevlaunch.plan.machine import MachinePlan
from sevlaunch.plan.memory import MemoryPlan
from sevlaunch.plan.network import NetworkPlan
from sevlaunch.plan.option import Choice, Option
from sevlaunch.plan.peripherals import PeripheralsPlan
from sevlaunch.plan.security import SecurityPlan
from sevlaunch.plan.storage import StoragePlan

Reboot = Literal["reset", "relaunch", "stop"]


class Plan(Struct, frozen=True):
    """Every choice made for one guest, each with its reason. The command line is a function of this alone.

    ``reboot``: reset (QEMU resets the guest in place), relaunch (QEMU ends and is started anew), stop (QEMU ends).
    """

    name: str
    profile_file: str
    binary: Choice[str]
    qemu_version: str
    folder: Path
    state_folder: Path
    machine: MachinePlan
    memory: MemoryPlan
    firmware: FirmwarePlan
    security: SecurityPlan | None
    boot: tuple[Option, ...]
    boot_files: tuple[str, ...]
    storage: StoragePlan
    network: NetworkPlan
    peripherals: PeripheralsPlan
    reboot: Choice[Reboot]
    run_as: Choice[str] | None
    uuid: Choice[str] | None
    monitor_object: bool
    rehearsal: bool
    extra_args: tuple[Choice[str], ...]
    warnings: tuple[str, ...]

    @property
    def guest_type(self) -> GuestType:
        """The type, which tells what the guest can have."""
        return self.security.guest_type if self.security else GuestType.NONE

    @property
    def companions(self) -> tuple[Companion, ...]:
        """The processes that run beside QEMU."""
        return (*self.network.companions, *self.peripherals.companions)

    @property
    def qmp_socket(self) -> Path:
        """Where QEMU listens for QMP."""
        return self.folder / "qmp.sock"

    @property
    def console_socket(self) -> Path | None:
        """Where QEMU listens for the console, if there is one."""
        return self.folder / "console.sock" if self.peripherals.console else None
