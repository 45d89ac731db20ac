"""A change that would explain a digest or a measurement: what it changes, from what to what, and who said otherwise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from msgspec import Struct, field
from msgspec.structs import replace

from sevlaunch.owner.digest import Launch
from sevlaunch.owner.firmware import Firmware
from sevlaunch.owner.setup import DEFAULT, Setup
from sevlaunch.sevapi.kernel_hashes import KernelHashes


class Change(Struct, frozen=True):
    """``subject`` were ``value``, and not ``said``, as ``source`` says."""

    subject: str
    value: str
    said: str
    source: str

    def __str__(self) -> str:
        return f"{self.subject} were {self.value} ({self.source} says {self.said})"


class LaunchChange(Struct, frozen=True):
    """A change of what is measured. ``alone``: one so rare that it is not tried together with another."""

    change: Change
    apply: Callable[[Launch], Launch]
    alone: bool = False

    @property
    def subject(self) -> str:
        """What it changes; two changes of the same don't go together."""
        return self.change.subject


class Others(Struct, frozen=True):
    """What a launch may have had instead, by what an explanation calls it; hashes are SHA-256, 32 bytes.

    ``initrd_files``: those of the initrds that are files at hand, to put credentials behind.
    """

    firmwares: dict[str, Firmware] = field(default_factory=dict)
    kernels: dict[str, bytes] = field(default_factory=dict)
    initrds: dict[str, bytes] = field(default_factory=dict)
    cmdlines: dict[str, bytes] = field(default_factory=dict)
    initrd_files: dict[str, Path] = field(default_factory=dict)


class Known(Struct, frozen=True):
    """What else the owner has at hand.

    ``kernel``, ``cmdline``: of a kernel that is not to be measured. ``variables``: variable stores, by name.
    """

    kernel: KernelHashes | None = None
    cmdline: bytes | None = None
    variables: tuple[tuple[str, bytes], ...] = ()
    others: Others = Others()


class Said:
    """Makes changes that name who said the present value."""

    def __init__(self, setup: Setup) -> None:
        self._sources = setup.sources
        self._values = {one.name: one.value for one in setup.inputs}

    def source(self, name: str) -> str:
        """Who said what the input ``name`` of the setup is."""
        return self._sources.get(name, DEFAULT)

    def value(self, name: str) -> str:
        """What the input ``name`` of the setup is, for people; empty where there is none."""
        return self._values.get(name, "")

    def change(self, subject: str, value: str, said: str, name: str, fields: dict[str, object]) -> LaunchChange:
        """The change of ``fields`` of the launch, which come from the input ``name``."""
        return LaunchChange(
            Change(subject, value, said, self.source(name)),
            lambda launch: replace(launch, **fields),
        )

    def kernel(self, change: Change, **fields: bytes) -> LaunchChange:
        """The change of ``fields`` of the kernel's hashes; a launch that measures no kernel stays as it is."""

        def apply(launch: Launch) -> Launch:
            return replace(launch, kernel=replace(launch.kernel, **fields)) if launch.kernel else launch

        return LaunchChange(change, apply)
