"""Whether a host is fit for a profile: the host's checks, and what the profile's own plan and files come to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct
from msgspec.structs import replace

from sevlaunch.doctor.examination import TREE, Report, examine
from sevlaunch.doctor.programs import FIRMWARE
from sevlaunch.doctor.requirements import purpose_of
from sevlaunch.doctor.tree import Finding, Result
from sevlaunch.errors import HostError, Problem, ProfileError
from sevlaunch.guest.preflight import check_files
from sevlaunch.host.model import Host
from sevlaunch.plan.plan import Plan
from sevlaunch.plan.resolve import resolve
from sevlaunch.profile.loader import LoadedProfile


class _Outcome(Struct, frozen=True):
    """What a step of the start came to: a text where it went well, or the problems."""

    found: str
    problems: Sequence[Problem] = ()


def examine_for(loaded: LoadedProfile, host: Host) -> Report:
    """The report on ``host`` for a profile. Its own firmware takes the place of the one that descriptors tell of."""
    profile = loaded.profile
    purpose = purpose_of(profile.security.guest_type, profile.accel)
    report = examine(host, purpose, tree=[check for check in TREE if check is not FIRMWARE])
    branch = _profile_branch(loaded, host)
    fit = report.is_fit and branch.result is not Result.FAILED
    return Report(purpose, (*report.findings, branch), {**report.fit, purpose: fit})


def _profile_branch(loaded: LoadedProfile, host: Host) -> Finding:
    plan: Plan | None = None
    try:
        plan = resolve(loaded, host)
        planned = _Outcome(f"can be planned with QEMU {plan.qemu_version}")
    except (ProfileError, HostError) as error:
        planned = _Outcome("", error.problems or [Problem(error.message, hint=error.hint)])
    children = list(_findings("profile.plan", "plan", planned, "Every choice for the guest, made for this host."))
    if plan is not None:
        children += _findings("profile.files", "files", _files(plan), "Files and programs that the guest is made of.")
        children += [
            _finding("profile.warning", "warning", Result.WARNING, Problem(warning), "") for warning in plan.warnings
        ]
    else:
        reason = Problem("not looked at: plan failed")
        children.append(_finding("profile.files", "files", Result.SKIPPED, reason, "Files of the guest."))
    unfit = any(child.result is Result.FAILED for child in children)
    verdict = "can't be started" if unfit else "can be started"
    summary = Problem(f"{loaded.profile.name} ({loaded.file}) {verdict}")
    top = _finding("profile", "profile", Result.FAILED if unfit else Result.OK, summary, "What this guest needs.")
    return replace(top, children=tuple(children))


def _files(plan: Plan) -> _Outcome:
    try:
        check_files(plan)
    except HostError as error:
        return _Outcome("", error.problems or [Problem(error.message, hint=error.hint)])
    return _Outcome(f"all there; firmware {plan.firmware.code.value}")


def _findings(name: str, title: str, outcome: _Outcome, why: str) -> Iterator[Finding]:
    if not outcome.problems:
        yield _finding(name, title, Result.OK, Problem(outcome.found), why)
    for problem in outcome.problems:
        yield _finding(name, title, Result.FAILED, problem, why)


def _finding(name: str, title: str, result: Result, problem: Problem, why: str) -> Finding:
    where = ": ".join(part for part in (problem.location, problem.path, problem.message) if part)
    return Finding(name, title, result, where, why, problem.hint, needed_by=(), root=False)
