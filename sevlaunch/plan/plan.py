"""The plan of one guest: every choice made, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from msgspec import Struct
from msgspec.structs import replace

from sevlaunch.errors import UsageError
from sevlaunch.guest_type import GuestType
from sevlaunch.origin import Origin
from sevlaunch.plan.addresses import BusesPlan
from sevlaunch.plan.boot import BootPlan
from sevlaunch.plan.console import ConsolePlan
from sevlaunch.plan.cpu import CpuPlan
from sevlaunch.plan.devices import VsockPlan
from sevlaunch.plan.firmware import FirmwarePlan
from sevlaunch.plan.machine import MachinePlan
from sevlaunch.plan.memory import MemoryPlan
from sevlaunch.plan.needs import Companion, Needs, merged
from sevlaunch.plan.network import NetworkPlan, with_descriptors
from sevlaunch.plan.option import Choice
from sevlaunch.plan.part import Part, PrivateFile
from sevlaunch.plan.places import QEMU_FOLDER
from sevlaunch.plan.storage import StoragePlan, with_overlays

if TYPE_CHECKING:
    from sevlaunch.plan.first_boot import FirstBootPlan
    from sevlaunch.plan.initdata import InitDataPlan
    from sevlaunch.plan.security import SecurityPlan

Reboot = Literal["reset", "relaunch", "stop"]
Crash = Literal["stop", "relaunch", "keep"]

# What it takes to start QEMU as another user, to give that user a folder, and to reach what is in it.
_OTHER_USER = Needs(capabilities=("CAP_SETUID", "CAP_SETGID", "CAP_CHOWN", "CAP_KILL", "CAP_DAC_OVERRIDE"))


class Plan(Struct, frozen=True):
    """Every choice made for one guest, each with its reason. The command line is a function of this alone.

    ``devices``: all but disks and networks, in the order of the command line.
    ``reboot``: reset (QEMU resets the guest in place), relaunch (QEMU ends and is started anew), stop (QEMU ends).
    ``crash``: stop (QEMU ends), relaunch (QEMU ends and is started anew), keep (QEMU waits).
    ``fresh``: its start removes what earlier runs have left, NVRAM and overlays first of all.
    ``origin``: how its profile is loaded again, if that has a file.
    """

    name: str
    profile_file: str
    binary: Choice[str]
    qemu_version: str
    folder: Path
    state_folder: Path
    machine: MachinePlan
    cpu: CpuPlan
    memory: MemoryPlan
    firmware: FirmwarePlan
    security: SecurityPlan | None
    boot: BootPlan
    buses: BusesPlan
    iommu: tuple[Part, ...]
    storage: StoragePlan
    first_boot: FirstBootPlan | None
    initdata: InitDataPlan | None
    networks: tuple[NetworkPlan, ...]
    devices: tuple[Part, ...]
    reboot: Choice[Reboot]
    crash: Choice[Crash]
    run_as: Choice[str] | None
    uuid: Choice[str] | None
    monitor_object: bool
    rehearsal: bool
    extra_args: tuple[Choice[str], ...]
    warnings: tuple[str, ...]
    fresh: bool = False
    origin: Origin | None = None

    @property
    def qemu_folder(self) -> Path:
        """The folder of QEMU's account, in the guest's runtime folder: sockets, and the console's log."""
        return self.folder / QEMU_FOLDER

    @property
    def console(self) -> ConsolePlan | None:
        """The console, if there is one."""
        return next((part for part in self.devices if isinstance(part, ConsolePlan)), None)

    @property
    def vsock_cid(self) -> int | None:
        """The context ID of the vsock device, if there is one."""
        return next((part.cid.value for part in self.devices if isinstance(part, VsockPlan)), None)

    @property
    def guest_type(self) -> GuestType:
        """The type, which tells what the guest can have."""
        return self.security.guest_type if self.security else GuestType.NONE

    @property
    def complete(self) -> bool:
        """Whether it has a command line: what is made of files is not there before those are read."""
        launch = self.security is None or self.security.own.complete
        return launch and (self.initdata is None or self.initdata.document is not None)

    def require_complete(self) -> None:
        """See that nothing is missing: the command line would be that of another launch.

        :raise UsageError: when the ID block or the init-data is not made yet.
        """
        if not self.complete:
            raise UsageError(
                f"the ID block or the init-data of {self.name} is not made yet",
                hint="complete the plan first: sevlaunch.api.complete_plan()",
            )

    @property
    def board(self) -> tuple[Part, ...]:
        """The parts that make the machine."""
        security = (self.security,) if self.security else ()
        return (self.machine, self.cpu, self.memory, self.firmware, *security, self.boot)

    @property
    def attached(self) -> tuple[Part, ...]:
        """The parts that hang on it."""
        seed = tuple(part for part in (self.first_boot, self.initdata) if part)
        return (*self.iommu, self.buses, self.storage, *seed, *self.networks, *self.devices)

    @property
    def files(self) -> tuple[PrivateFile, ...]:
        """What is written into the guest's folder before the start."""
        return tuple(file for part in (*self.board, *self.attached) for file in part.files)

    @property
    def needs(self) -> Needs:
        """What the guest asks of the host: what all of its parts do."""
        account = (_OTHER_USER,) if self.run_as else ()
        return merged((*account, *(part.needs for part in (*self.board, *self.attached))))

    @property
    def companions(self) -> tuple[Companion, ...]:
        """The helper programs, which run beside QEMU."""
        return self.needs.companions


def handed_over(plan: Plan, numbers: Mapping[int, int]) -> Plan:
    """The plan with other numbers for the descriptors that QEMU is handed: those that they really have."""
    networks, storage = with_descriptors(plan.networks, numbers), with_overlays(plan.storage, numbers)
    return replace(plan, networks=networks, storage=storage)
