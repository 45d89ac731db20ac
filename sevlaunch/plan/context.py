"""What the resolving functions share: the profile with its positions, the host, and the problems found so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sevlaunch.errors import HostError, Problem, ProfileError
from sevlaunch.host.facts import QemuFacts
from sevlaunch.host.model import Host
from sevlaunch.plan.option import Parameter, Reason, rule
from sevlaunch.profile.loader import LoadedProfile
from sevlaunch.profile.model import Profile


@dataclass
class Context:
    """One run of :func:`sevlaunch.plan.resolve.resolve`."""

    loaded: LoadedProfile
    host: Host
    qemu: QemuFacts
    rehearse: bool = False
    refusals: list[Problem] = field(default_factory=list)
    lacks: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

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
    def state_folder(self) -> Path:
        """The folder of what outlives the guest."""
        return Path(self.host.folders.state) / self.profile.name

    def why(self, *path: str | int, default: str = "default") -> Reason:
        """The reason for a value taken from the profile: its line, or that it is the default."""
        mark = self.loaded.positions.mark(path)
        return Reason("profile", str(mark)) if mark else rule(default)

    def from_profile(self, key: str, value: object, *path: str | int, default: str = "default") -> Parameter:
        """A parameter whose value the profile says at ``path``."""
        return Parameter(key, _text(value), self.why(*path, default=default))

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


def _text(value: object) -> str:
    return ("on" if value else "off") if isinstance(value, bool) else str(value)
