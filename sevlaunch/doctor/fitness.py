"""Whether a host is fit for a profile: the host's checks, and what the profile's own plan and needs come to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct
from msgspec.structs import replace

from sevlaunch.doctor.examination import TREE, Report, examine
from sevlaunch.doctor.preflight import Look, look_at
from sevlaunch.doctor.programs import FIRMWARE
from sevlaunch.doctor.requirements import purpose_of
from sevlaunch.doctor.tree import Finding, Result
from sevlaunch.errors import HostError, Problem, ProfileError
from sevlaunch.host.model import Host
from sevlaunch.plan.needs import NeededDevice
from sevlaunch.plan.plan import Plan
from sevlaunch.plan.resolve import resolve
from sevlaunch.profile.loader import LoadedProfile

_FILES = "Files and programs that the guest is made of."


class _Outcome(Struct, frozen=True):
    """What a step of the start came to: a text where it went well, or the problems."""

    found: str
    problems: Sequence[Problem] = ()


def examine_for(loaded: LoadedProfile, host: Host, *, here: bool = True) -> Report:
    """The report on ``host`` for a profile. Its own firmware takes the place of the one that descriptors tell of.

    :param here: ``host`` is this machine, whose files can be looked at.
    """
    purpose = purpose_of(loaded.profile.security.guest_type, loaded.profile.accel)
    report = examine(host, purpose, tree=[check for check in TREE if check is not FIRMWARE])
    branch = _profile_branch(loaded, host, here)
    fit = report.is_fit and branch.result is not Result.FAILED
    return Report(purpose, (*report.findings, branch), {**report.fit, purpose: fit})


def _profile_branch(loaded: LoadedProfile, host: Host, here: bool) -> Finding:
    plan: Plan | None = None
    try:
        plan = resolve(loaded, host)
        planned = _Outcome(f"can be planned with QEMU {plan.qemu_version}")
    except (ProfileError, HostError) as error:
        planned = _Outcome("", error.problems or [Problem(error.message, hint=error.hint)])
    children = list(_findings("profile.plan", "plan", planned, "Every choice for the guest, made for this host."))
    if plan is not None:
        children += _needs_here(plan) if here else _needs_elsewhere(plan, host)
        children += [
            _finding("profile.warning", "warning", Result.WARNING, Problem(warning), "") for warning in plan.warnings
        ]
    else:
        reason = Problem("not looked at: plan failed")
        children.append(_finding("profile.files", "files", Result.SKIPPED, reason, _FILES))
    unfit = any(child.result is Result.FAILED for child in children)
    verdict = "can't be started" if unfit else "can be started"
    summary = Problem(f"{loaded.profile.name} ({loaded.file}) {verdict}")
    top = _finding("profile", "profile", Result.FAILED if unfit else Result.OK, summary, "What this guest needs.")
    return replace(top, children=tuple(children))


def _needs_here(plan: Plan) -> Iterator[Finding]:
    try:
        looks = look_at(plan)
    except HostError as error:
        problem = Problem(error.message, hint=error.hint)
        yield _finding("profile.account", "account", Result.FAILED, problem, "QEMU runs as this user.")
        return
    for look in looks:
        if isinstance(look.need, NeededDevice):
            yield _device(look.need, look.problem)
    yield from _findings("profile.files", "files", _files(plan, looks), _FILES)


def _device(device: NeededDevice, problem: Problem | None) -> Finding:
    result = Result.FAILED if problem else Result.OK
    return _finding("profile.device", device.path, result, problem or Problem("can be opened"), device.why)


def _files(plan: Plan, looks: Sequence[Look]) -> _Outcome:
    problems = [look.problem for look in looks if look.problem and not isinstance(look.need, NeededDevice)]
    return _Outcome(f"all there; firmware {plan.firmware.code.value}", problems)


def _needs_elsewhere(plan: Plan, host: Host) -> Iterator[Finding]:
    """What is known of another machine: its devices, as far as they were looked at when the host was saved."""
    seen = {device.path: device for device in host.platform.devices} if host.platform else {}
    for need in plan.needs.devices:
        if need.probed:
            continue
        device = seen.get(need.path)
        if device is None:
            problem = Problem("not looked at when the host was saved")
            yield _finding("profile.device", need.path, Result.UNKNOWN, problem, need.why)
        elif not device.openable:
            problem = Problem(f"can't be opened: {device.error}", hint=need.remedy)
            yield _finding("profile.device", need.path, Result.FAILED, problem, need.why)
        else:
            yield _device(need, None)
    unseen = Problem("files of another machine: not looked at")
    yield _finding("profile.files", "files", Result.UNKNOWN, unseen, _FILES)


def _findings(name: str, title: str, outcome: _Outcome, why: str) -> Iterator[Finding]:
    if not outcome.problems:
        yield _finding(name, title, Result.OK, Problem(outcome.found), why)
    for problem in outcome.problems:
        yield _finding(name, title, Result.FAILED, problem, why)


def _finding(name: str, title: str, result: Result, problem: Problem, why: str) -> Finding:
    where = ": ".join(part for part in (problem.location, problem.path, problem.message) if part)
    return Finding(name, title, result, where, why, problem.hint, needed_by=(), root=False)
