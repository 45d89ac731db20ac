"""What a verifier needs to know of the launches that its owner allows: digests, policy, platforms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TypeVar

from msgspec import Struct, field

from sevlaunch.errors import UsageError
from sevlaunch.owner.report_wanted import show_policy
from sevlaunch.sevapi.report import Tcb

_Value = TypeVar("_Value")


class AllowedLaunch(Struct, frozen=True):
    """One launch: its digest, 48 bytes, its policy, and how many vCPUs it has.

    ``host_data``, 32 bytes, and ``id_key_digest``, 48: where the launch says them. ``source``: what it comes from.
    """

    digest: bytes
    policy: int
    vcpus: int
    source: str
    host_data: bytes | None = None
    id_key_digest: bytes | None = None


class Platform(Struct, frozen=True):
    """The platforms that are taken.

    ``tcbs``: reported TCBs, each as good as the other; empty: nothing is known. ``bits``: what PLATFORM_INFO has to
    say, by the names in :data:`~sevlaunch.sevapi.report.PLATFORM_BITS`. ``generation``: such as Milan; empty: any.
    ``chip_ids``: the only processors, 8 or 64 bytes each; empty: any.
    """

    tcbs: tuple[Tcb, ...] = ()
    bits: Mapping[str, bool] = field(default_factory=dict)
    generation: str = ""
    chip_ids: tuple[bytes, ...] = ()


class ReferenceValues(Struct, frozen=True):
    """Launches and platforms that go together; ``expires`` is in UTC.

    ``name``: where they belong in trustee's RVPS, such as ``rvps:///github.com/OWNER/IMAGE:v1``; empty: nowhere.
    """

    launches: tuple[AllowedLaunch, ...]
    platform: Platform
    expires: datetime
    name: str = ""

    @property
    def digests(self) -> tuple[str, ...]:
        """The digests, in hexadecimal, each once."""
        return tuple(dict.fromkeys(one.digest.hex() for one in self.launches))

    def only_policy(self, verifier: str) -> int:
        """The policy that all launches have.

        :param verifier: who can know one alone.
        :raise UsageError: when they have several.
        """
        return _only(
            [one.policy for one in self.launches],
            "policy",
            [show_policy(one.policy) for one in self.launches],
            verifier,
        )

    def only_host_data(self, verifier: str) -> bytes | None:
        """The host data that all launches have; None: none says any.

        :raise UsageError: when they have several.
        """
        values = [one.host_data for one in self.launches]
        return _only(values, "host data", [one.hex() if one else "none" for one in values], verifier)

    def require_platform(self, verifier: str, *bits: str) -> None:
        """Make sure that the TCB is known, and what is said of ``bits``.

        :raise UsageError: when they are not.
        """
        missing = ["the TCB (--tcb)"] if not self.platform.tcbs else []
        missing += [f"{name} (--platform {name} or no-{name})" for name in bits if name not in self.platform.bits]
        if missing:
            raise UsageError(
                f"{verifier} affirms no platform without {', '.join(missing)}",
                hint="give them, or a report of such a platform, which says them all: --report FILE",
            )


def _only(values: Sequence[_Value], what: str, shown: Sequence[str], verifier: str) -> _Value:
    """The value that all of ``values`` are."""
    if len(set(values)) > 1:
        raise UsageError(
            f"{verifier} knows one {what}, and the launches have {', '.join(dict.fromkeys(shown))}",
            hint=f"make a file for each {what}",
        )
    return values[0]
