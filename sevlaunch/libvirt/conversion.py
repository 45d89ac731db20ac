"""What the modules of the import share while one domain is read."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from sevlaunch.libvirt.document import Element, Part
from sevlaunch.libvirt.outcomes import About, Key, Outcomes
from sevlaunch.profile.policy import SEV_ES
from sevlaunch.units import parse_ranges

# The types of launchSecurity that sevlaunch starts.
ENCRYPTED = ("sev", "sev-snp")


@dataclass
class Conversion:
    """One domain on its way to a profile.

    ``machines`` are the machine types that the QEMU has which is to run the guest; None: unknown. ``boot`` collects
    (order, device of the profile, where it stands).
    """

    domain: Element
    machines: Collection[str] | None
    outcomes: Outcomes = field(default_factory=Outcomes)
    boot: list[tuple[int, str, Part]] = field(default_factory=list)
    _lengths: dict[Key, int] = field(default_factory=dict)

    @property
    def devices(self) -> Element:
        """``<devices>``."""
        return self.domain.child("devices")

    @property
    def security(self) -> Element:
        """``<launchSecurity>``."""
        return self.domain.child("launchSecurity")

    @property
    def encrypted(self) -> bool:
        """Whether the guest's memory is encrypted."""
        return self.security.get("type") in ENCRYPTED

    @property
    def snp(self) -> bool:
        """Whether it is a SEV-SNP guest."""
        return self.security.get("type") == "sev-snp"

    @property
    def plain_sev(self) -> bool:
        """Whether it is a SEV guest without the encrypted registers of SEV-ES: bit 2 of its policy, in hexadecimal."""
        policy = number(self.security.child("policy").text, 16)
        return self.security.get("type") == "sev" and not (policy or 0) & SEV_ES

    @property
    def kvm(self) -> bool:
        """Whether KVM runs the guest."""
        return self.encrypted or self.domain.get("type") == "kvm"

    @property
    def root_bus(self) -> str:
        """The kind of bus that devices are on: pcie on q35, pci on the older machines."""
        return "pcie" if "q35" in str(self.outcomes.values[("machine",)].value) else "pci"

    def next(self, *key: str | int) -> Key:
        """The key of a new entry at the end of a list."""
        position = self.length(*key)
        self._lengths[key] = position + 1
        return (*key, position)

    def length(self, *key: str | int) -> int:
        """How many entries a list has."""
        return self._lengths.get(key, 0)

    def arguments(self, about: About, *texts: str) -> None:
        """Arguments for QEMU that no key of the profile stands for."""
        for text in texts:
            self.outcomes.carry(self.next("qemu", "extra_args"), text, about)

    def cpu_feature(self, about: About, text: str) -> None:
        """A CPU property, ``name=value``."""
        self.outcomes.carry(self.next("cpu", "features"), text, about)


def number(text: str | None, base: int = 10) -> int | None:
    """The whole number that ``text`` is, 0x included for base 16; None if it is none, or absurdly long."""
    if text is None or len(text) > 40 or "_" in text:
        return None
    try:
        return int(text, base)
    except ValueError:
        return None


def number_set(text: str | None) -> set[int]:
    """The numbers in libvirt's text for CPUs and NUMA nodes, such as 0-7,^3; none if it is no such text."""
    found: set[int] = set()
    try:
        for part in (text or "").replace(" ", "").split(","):
            numbers = parse_ranges(part.removeprefix("^"))
            found = found.difference(numbers) if part.startswith("^") else found.union(numbers)
    except ValueError:
        return set()
    return found
