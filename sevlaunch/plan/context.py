"""What the resolving functions share: the profile with its positions, the host, and the problems found so far."""

from __future__ import annotations

import hashlib
import os
from itertools import count
from pathlib import Path
from typing import TypeVar

from sevlaunch.errors import HostError, Problem, ProfileError
from sevlaunch.host.facts import QemuFacts
from sevlaunch.host.folders import image_file
from sevlaunch.host.model import Host
from sevlaunch.plan.addresses import Address, address_of
from sevlaunch.plan.option import Choice, Reason, rule
from sevlaunch.plan.places import QEMU_FOLDER
from sevlaunch.profile.loader import LoadedProfile
from sevlaunch.profile.model import Disk, Profile, TapNetwork
from sevlaunch.profile.places import root_bus

T = TypeVar("T")

# The first number for a descriptor on a command line that is printed; a start has its own numbers. A shell's own are
# below it.
_FIRST_DESCRIPTOR = 10


class Context:
    """One run of :func:`sevlaunch.plan.resolve.resolve`."""

    def __init__(self, loaded: LoadedProfile, host: Host, qemu: QemuFacts, *, rehearse: bool = False) -> None:
        self.loaded = loaded
        self.host = host
        self.qemu = qemu
        self.rehearse = rehearse
        self.refusals: list[Problem] = []
        self.lacks: list[Problem] = []
        self.warnings: list[str] = []
        self.addresses: list[Address] = []
        networks = self.profile.networks
        given = {number for network in networks if isinstance(network, TapNetwork) for number in network.descriptors}
        # Numbers for what QEMU is handed open, other than those of the profile.
        self.descriptors = (number for number in count(_FIRST_DESCRIPTOR) if number not in given)

    @property
    def profile(self) -> Profile:
        """The profile."""
        return self.loaded.profile

    @property
    def other_user(self) -> str | None:
        """The user that QEMU runs as, where that is not the one who starts it."""
        wanted = self.profile.run_as
        return wanted if wanted != self.host.user else None

    @property
    def folder(self) -> Path:
        """The guest's runtime folder."""
        return Path(self.host.folders.runtime) / self.profile.name

    @property
    def qemu_folder(self) -> Path:
        """The folder in it that belongs to the account that QEMU runs as."""
        return self.folder / QEMU_FOLDER

    @property
    def state_folder(self) -> Path:
        """The folder of what outlives the guest: its own, and not that of all whose profiles say the same name."""
        key = hashlib.sha256(os.fsencode(self.loaded.identity)).hexdigest()[:8]
        return Path(self.host.folders.state) / self.profile.name / key

    def why(self, *path: str | int, default: str = "default") -> Reason:
        """The reason for a value taken from the profile: its line, or that it is the default."""
        mark = self.loaded.positions.mark(path)
        return Reason("profile", str(mark)) if mark else rule(default)

    def choice(self, value: T, *path: str | int, default: str = "default") -> Choice[T]:
        """A value that the profile says at ``path``, or that is the default."""
        return Choice(value, self.why(*path, default=default))

    def choice_or_none(self, value: T | None, *path: str | int) -> Choice[T] | None:
        """A value that the profile says at ``path``; None where it says none."""
        return None if value is None else self.choice(value, *path)

    def dma_api(self, own: bool | None = None, *path: str | int) -> Choice[bool]:
        """Whether a virtio device is behind the DMA API: as its ``own`` key at ``path`` says, or else as all are."""
        if own is not None:
            return self.choice(own, *path)
        return self.choice(self.profile.iommu_platform, "iommu_platform", default="every virtio device")

    def image_path(self, disk: Disk) -> str:
        """Where the content of a disk is: as the profile says, or where an image is that is fetched."""
        return str(image_file(disk.source, Path(self.host.folders.images))) if disk.is_fetched else disk.source

    def correct(self, key: str) -> str:
        """What to do about a file that the profile names under ``key``, and that is not there."""
        return f"make it, or correct {key} in {self.loaded.file}, which may say where it comes from"

    @property
    def machine_type(self) -> str:
        """The machine type behind an alias; where this QEMU has no such machine, what the profile calls it."""
        return self.qemu.machines.get(self.profile.machine, self.profile.machine)

    @property
    def root_bus(self) -> str:
        """The name of the machine's PCI bus."""
        return root_bus(self.machine_type)

    def address(self, kind: str, position: int = 0) -> Address:
        """The place of a device, the ``position``-th of its kind; the profile's rules see that there is one."""
        address = address_of(self.root_bus, kind, position)
        self.addresses.append(address)
        return address

    def need_device(self, driver: str, needed_by: str) -> None:
        """Note a problem where QEMU has no device ``driver``, which ``needed_by``, a part of the profile, needs."""
        if driver not in self.qemu.devices:
            self.lack(
                f"QEMU {self.qemu.version} has no device {driver}, which {needed_by} needs",
                hint="install this QEMU's modules (Debian: qemu-system-modules-spice for qxl), or leave it out",
            )

    def refuse(self, message: str, *path: str | int, hint: str = "") -> None:
        """Note that the profile can't be had on this host, at the value to blame."""
        location = str(self.loaded.positions.nearest(path))
        self.refusals.append(Problem(message, location=location, path=".".join(map(str, path)), hint=hint))

    def lack(self, message: str, hint: str = "") -> None:
        """Note something that the host does not have."""
        self.lacks.append(Problem(message, hint=hint))

    def warn(self, message: str) -> None:
        """Note something that the user should know and that does not stop the start."""
        self.warnings.append(message)

    def raise_problems(self) -> None:
        """:raise ProfileError: or :raise HostError: with all that was noted."""
        if self.refusals:
            raise ProfileError(f"{self.loaded.file} is refused", problems=self.refusals)
        if self.lacks:
            raise HostError(f"this host can't run {self.profile.name}", problems=self.lacks)
