"""Taking a guest down and starting it again as it was started, by what its profile says now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from shlex import join, quote

from msgspec import Struct
from msgspec.structs import replace

from sevlaunch.doctor.preflight import check_files, check_root
from sevlaunch.errors import Problem, ProfileError, UsageError
from sevlaunch.flows.bring_up import BroughtUp, bring_up
from sevlaunch.flows.hosts import host_for
from sevlaunch.flows.plans import plan_guest
from sevlaunch.flows.start_options import StartOptions
from sevlaunch.flows.take_down import take_down
from sevlaunch.guest.ending import POWERDOWN_LIMIT
from sevlaunch.guest.folder import find
from sevlaunch.guest.life import qemu_pid
from sevlaunch.guest.readiness import READY_LIMIT, Condition
from sevlaunch.guest.record import Record, Started
from sevlaunch.host.folders import runtime_folder
from sevlaunch.host.memory import given_back
from sevlaunch.origin import Origin
from sevlaunch.plan.plan import Plan
from sevlaunch.profile.loader import LoadedProfile, load, shown_override


class Restart(Struct, frozen=True):
    """A new start of the guest, planned while it still runs. ``started``: how it was, and will be."""

    plan: Plan
    started: Started
    root: Path


def plan_restart(
    name: str,
    *,
    root: Path | None = None,
    fresh: bool = False,
    fetch: Callable[[Sequence[LoadedProfile]], object] = lambda _: None,
) -> Restart:
    """Plan the new start of a guest, by what its profile says now, with the overrides that it was started with.

    :param root: the folder of all guests; default: the user's runtime folder.
    :param fresh: the new start removes first what earlier runs have left, overlays and NVRAM above all.
    :param fetch: gets the profile before the host is looked at, to bring the images that are not here:
        :func:`sevlaunch.sync.fetch_missing` does. By default a missing image is an error.
    :raise GuestNotFound: when there is no such guest.
    :raise UsageError: when it is none that can be started so again; the hint says what to do instead.
    :raise ProfileError: when its profile has gone, or is refused by now.
    :raise HostError: when the new start would fail on this host.
    """
    root = root or runtime_folder()
    folder = find(root, name)
    record = folder.record()
    if record is None or record.origin is None or record.started is None:
        raise UsageError(
            f"{name} was not started by `sevlaunch up` with a profile in a file, so that nothing tells how to start it "
            "again",
            hint=f"sevlaunch down {quote(name)}, then start it as before",
        )
    again = _up(name, record.origin, rehearse=record.rehearsal)
    _check_started(name, record, record.started, again)
    loaded = _load(name, record.origin)
    fetch([loaded])
    host = host_for(loaded.profile, runtime=folder.root)
    if pid := qemu_pid(folder):
        # What it has is for the new one.
        host = replace(host, memory=given_back(host.memory, pid))
    plan = plan_guest(loaded, host, rehearse=record.rehearsal)
    if plan.security and plan.security.files:
        raise UsageError(
            f"the launch of {name} is bound to its owner's session, and who has verified it has to verify the next one",
            hint=f"sevlaunch down {quote(name)} && {again} --paused, then verify it as before",
        )
    plan = replace(plan, fresh=fresh)
    check_files(plan)
    plan = check_root(plan)
    if plan.storage.overlays and not fresh:
        # Few guests have any.
        from sevlaunch.guest.overlays import check_overlays

        check_overlays(plan)
    return Restart(plan, record.started, root)


async def restart(
    planned: Restart,
    *,
    now: bool = False,
    limit: float = POWERDOWN_LIMIT,
    conditions: Sequence[Condition] = (),
    ready_limit: float = READY_LIMIT,
) -> BroughtUp:
    """Take the guest down as :func:`sevlaunch.flows.take_down.take_down` does, and bring it up again.

    :param now: no power-down: the guest is not asked.
    :param limit: seconds that the guest's system has for the power-down.
    :param conditions: what it has to reach then, each within ``ready_limit`` seconds.
    :raise SevlaunchError: when it can't be taken down, or does not start; it is down in the second case, and says so.
    """
    name = planned.plan.name
    await take_down(name, root=planned.root, now=now, limit=limit)
    started = planned.started
    options = StartOptions(
        paused=started.paused, limit=started.limit, conditions=tuple(conditions), ready_limit=ready_limit
    )
    (finished,) = await bring_up([planned.plan], options=options)
    if finished.error:
        finished.error.problems = (*finished.error.problems, Problem(f"{name} was taken down before that, and is down"))
        raise finished.error
    return finished


def _load(name: str, origin: Origin) -> LoadedProfile:
    """What the profile says now.

    :raise ProfileError: when it has gone, or is refused.
    """
    file = Path(origin.file)
    if not file.is_file():
        raise ProfileError(
            f"the profile of {name}, {file}, is gone, and what it says now is what would count",
            hint=f"put it back; {name} is as it was",
        )
    return load(file, overrides=origin.overrides, name=name, folder=Path(origin.folder))


def _check_started(name: str, record: Record, started: Started, again: str) -> None:
    """See that a new start needs nobody.

    :raise UsageError: when it does.
    """
    if started.foreground:
        raise UsageError(
            f"{name} belongs to an `up --foreground`, which ends with it",
            hint="take it down there (Ctrl-C), and start it there; for a service: systemctl restart UNIT",
        )
    if started.verified and record.guest_type.measured_by_host:
        raise UsageError(
            f"the launch of {name} was verified before it ran, and the next one has to be, too",
            hint=f"sevlaunch down {quote(name)} && {again} --verify, with its keys and secrets",
        )
    if started.paused and record.guest_type.measured_by_host:
        raise UsageError(
            f"{name} was started paused, so that its owner could verify the launch before it ran, and give it secrets",
            hint=f"sevlaunch down {quote(name)} && {again} --paused, then verify it as before",
        )


def _up(name: str, origin: Origin, *, rehearse: bool) -> str:
    """The command that starts such a guest, without values that may be secret."""
    overrides = (word for override in origin.overrides for word in ("--set", shown_override(override)))
    options = ("--rehearse",) if rehearse else ()
    return join(("sevlaunch", "up", origin.file, "--name", name, *overrides, *options))
