"""Profile -> host -> plan, and why this host can't run it. Without asyncio: QEMU starts before that is imported."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from sevlaunch.doctor.preflight import check_files
from sevlaunch.doctor.requirements import missing, missing_for_rehearsal
from sevlaunch.errors import HostError, UsageError
from sevlaunch.flows.completion import complete_plan
from sevlaunch.flows.hosts import host_for
from sevlaunch.guest.starting import Start, started
from sevlaunch.guest_type import GuestType
from sevlaunch.host.model import Host
from sevlaunch.plan.plan import Plan
from sevlaunch.plan.resolve import resolve
from sevlaunch.profile.loader import LoadedProfile, load

_WITHOUT_SEV = "try the launch with an emulated processor: --rehearse; or run it unencrypted: --set security=none"


class Planned(Struct, frozen=True):
    """A plan, and the profile that it was made from."""

    loaded: LoadedProfile
    plan: Plan


def plan_guests(
    profiles: Sequence[Path],
    *,
    name: str | None = None,
    count: int | None = None,
    overrides: Sequence[str] = (),
    rehearse: bool = False,
    fresh: bool = False,
) -> list[Planned]:
    """The plans for guests of ``profiles`` on this host.

    :param name: the guest's name instead of the profile's own.
    :param count: that many guests of each profile, named NAME-1, NAME-2, ...
    :param overrides: ``PATH=VALUE`` texts, as for ``--set``.
    :param fresh: their starts remove what earlier runs have left: NVRAM, overlays, a TPM's state, consoles' logs.
    :raise ProfileError: when a profile is refused.
    :raise HostError: when this host can't run one of them, or an image is not there: see
        :func:`sevlaunch.flows.images.fetch_missing`.
    """
    loaded = load_guests(profiles, name=name, count=count, overrides=overrides)
    return plan_loaded(loaded, rehearse=rehearse, fresh=fresh)


def load_guests(
    profiles: Sequence[Path], *, name: str | None = None, count: int | None = None, overrides: Sequence[str] = ()
) -> list[LoadedProfile]:
    """The profiles of guests, one for each guest; as :func:`plan_guests`.

    :raise ProfileError: when a profile is refused.
    """
    return [loaded for profile in profiles for loaded in _load(profile, name, count, overrides)]


def plan_loaded(profiles: Sequence[LoadedProfile], *, rehearse: bool = False, fresh: bool = False) -> list[Planned]:
    """The plans for guests of loaded profiles; as :func:`plan_guests`."""
    return [Planned(one, replace(plan_guest(one, rehearse=rehearse), fresh=fresh)) for one in profiles]


def _load(profile: Path, name: str | None, count: int | None, overrides: Sequence[str]) -> Iterator[LoadedProfile]:
    if count is None:
        yield load(profile, overrides=overrides, name=name)
        return
    base = load(profile, overrides=overrides, name=name).profile.name
    for number in range(1, count + 1):
        yield load(profile, overrides=overrides, name=f"{base}-{number}")


def plan_guest(loaded: LoadedProfile, host: Host | None = None, *, rehearse: bool = False) -> Plan:
    """The plan of a profile for ``host``, which is able to run it; default: this machine.

    :param rehearse: plan a launch whose secure processor is emulated.
    :raise HostError: when the host lacks something; ``problems`` has all of it.
    :raise ProfileError: when the profile is refused.
    :raise UsageError: when there is nothing to rehearse.
    """
    profile = loaded.profile
    host = host or host_for(profile)
    if rehearse:
        return _plan_rehearsal(loaded, host)
    lacking = missing(profile.security.guest_type, profile.accel, host)
    if lacking:
        raise HostError(
            f"this host can't run {profile.name} ({profile.security.type})",
            problems=lacking,
            hint=_WITHOUT_SEV if profile.security.encrypted else "",
        )
    return _completed(loaded, resolve(loaded, host), host)


def _plan_rehearsal(loaded: LoadedProfile, host: Host) -> Plan:
    from sevlaunch.rehearsal.available import check_available

    profile = loaded.profile
    if not profile.security.encrypted:
        raise UsageError(
            f"{profile.name} has no security to rehearse", hint="leave --rehearse out, or set security.type"
        )
    lacking = missing_for_rehearsal(host)
    if lacking:
        raise HostError(f"this host can't rehearse {profile.name} ({profile.security.type})", problems=lacking)
    plan = resolve(loaded, host, rehearse=True)
    check_available(traced=bool(plan.security and plan.security.init2), snp=plan.guest_type is GuestType.SEV_SNP)
    return _completed(loaded, plan, host)


def _completed(loaded: LoadedProfile, plan: Plan, host: Host) -> Plan:
    if not plan.complete:
        # Of files that are missing all are told.
        check_files(plan)
    return complete_plan(loaded, plan, host)


@contextmanager
def begun(plans: Sequence[Plan]) -> Iterator[Start | None]:
    """The start of the one guest of ``plans``, whose QEMU boots while asyncio is imported; of several, none.

    For :func:`sevlaunch.flows.bring_up.bring_up`. Leaving the block ends the guest, unless it was let go.

    :raise SevlaunchError: as :func:`sevlaunch.guest.starting.started`.
    """
    if len(plans) != 1:
        yield None
        return
    with started(plans[0]) as start:
        yield start
