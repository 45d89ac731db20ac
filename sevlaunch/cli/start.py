"""What ``sevlaunch up`` does with its options; the flows do the rest.

One guest's QEMU is started before what is asynchronous is imported, which takes as long as QEMU.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from sevlaunch.atomic import write_whole
from sevlaunch.cli.failures import SeveralErrors, note
from sevlaunch.cli.output import Format, progress
from sevlaunch.cli.signals import hold_signals
from sevlaunch.errors import UsageError
from sevlaunch.flows.plans import Planned, begun, load_guests, plan_loaded
from sevlaunch.plan.plan import Plan

if TYPE_CHECKING:
    from sevlaunch.evidence import Evidence
    from sevlaunch.flows.bring_up import BroughtUp
    from sevlaunch.flows.start_options import StartOptions
    from sevlaunch.flows.verification import Verification
    from sevlaunch.guest.readiness import Condition


class Request(Struct, frozen=True):
    """The options of ``sevlaunch up``."""

    profiles: tuple[Path, ...]
    name: str | None
    count: int | None
    overrides: tuple[str, ...]
    paused: bool
    foreground: bool
    rehearse: bool
    fresh: bool
    offline: bool
    verity_check: bool
    evidence_file: Path | None
    lock_file: Path | None
    verify: bool
    tik: Path | None
    tek: Path | None
    secrets: tuple[str, ...]
    limit: float | None
    conditions: tuple[str, ...]
    ready_limit: float
    down_limit: float
    output: Format

    @property
    def single(self) -> bool:
        """Whether it is about one guest, and its output too."""
        return len(self.profiles) == 1 and self.count is None


def start(request: Request) -> None:
    """Start the guests, print what their launches showed, and let go of them (or stay, with --foreground).

    :raise SevlaunchError: as :func:`sevlaunch.guest.launch.launch`; of several guests, the first one's error.
    """
    _check(request)
    conditions = _conditions(request)
    loaded = load_guests(request.profiles, name=request.name, count=request.count, overrides=request.overrides)
    if any(one.profile.has_fetched_images for one in loaded):
        # Most profiles name files alone.
        from sevlaunch.cli.fetching import fetch_for_guests

        fetch_for_guests(loaded, offline=request.offline)
    planned = plan_loaded(loaded, rehearse=request.rehearse, fresh=request.fresh)
    if any(one.plan.boot.verity for one in planned):
        # Few guests have such a root.
        from sevlaunch.flows.roots import check_roots

        with progress("checking the root against its hash tree"):
            planned = check_roots(planned, look=request.verity_check)
    plans = [one.plan for one in planned]
    verification = _verification(request, planned[0])
    if request.lock_file:
        from sevlaunch.owner.lock import lock_plan

        write_whole(request.lock_file.absolute(), lock_plan(planned[0].loaded, plans[0]).to_json().encode())
    for warning in dict.fromkeys(warning for plan in plans for warning in plan.warnings):
        note(f"sevlaunch: warning: {warning}")
    if request.rehearse:
        note("sevlaunch: REHEARSAL: memory is NOT encrypted")
    if request.foreground:
        _stay(plans[0], request, conditions, verification)
        return
    for plan in plans:
        if plan.reboot.value == "relaunch":
            note(f"sevlaunch: note: a reboot ends {plan.name} ({plan.guest_type}); only --foreground starts it anew")
    finished = _let_go(plans, request, conditions, verification)
    from sevlaunch.cli.status_text import show_guest, show_started

    if verification and finished[0].evidence:
        note(f"sevlaunch: {plans[0].name} {verification.told}")
    if request.single and finished[0].evidence:
        show_guest(finished[0].evidence, request.output)
    elif not request.single:
        show_started(finished, request.output)
    if errors := [one.error for one in finished if one.error]:
        raise SeveralErrors(errors)


def _check(request: Request) -> None:
    if request.verify and request.paused:
        raise UsageError("--verify lets the guest run, or ends it", hint="leave --paused out")
    if not request.verify and (request.tik or request.tek or request.secrets):
        raise UsageError("--tik, --tek and --secret go with --verify", hint="add --verify")
    if request.paused and request.conditions:
        raise UsageError("--wait waits for what a paused guest never does", hint="leave --paused out")
    if request.single:
        return
    if request.foreground or request.evidence_file or request.lock_file or request.verify:
        raise UsageError(
            "--foreground, --evidence, --lock and --verify are for one guest",
            hint="each guest's evidence: sevlaunch evidence NAME",
        )
    if request.name and len(request.profiles) > 1:
        raise UsageError("--name is for one profile", hint="set name in each profile")


def _conditions(request: Request) -> list[Condition]:
    if not request.conditions:
        return []
    from sevlaunch.guest.readiness import parse_condition

    return [parse_condition(text) for text in request.conditions]


def _verification(request: Request, planned: Planned) -> Verification | None:
    if not request.verify:
        return None
    from sevlaunch.files import read_blob
    from sevlaunch.flows.verification import check_verifiable, plan_verification
    from sevlaunch.owner.secret import read_secret
    from sevlaunch.sevapi.session import KEY_BYTES, TransportKeys

    given = request.tik or request.tek or request.secrets
    if not planned.plan.guest_type.measured_by_host:
        check_verifiable(planned.plan, session=bool(given))
        return plan_verification(planned)
    if request.tik is None or (request.secrets and request.tek is None):
        raise UsageError(
            "--verify needs --tik, and --secret needs --tek, too", hint="sevlaunch owner session makes them"
        )
    keys = TransportKeys(
        tek=read_blob(request.tek, "TEK", [KEY_BYTES]) if request.tek else b"",
        tik=read_blob(request.tik, "TIK", [KEY_BYTES]),
    )
    return plan_verification(planned, keys, [read_secret(text) for text in request.secrets])


def _options(request: Request, verification: Verification | None, conditions: list[Condition]) -> StartOptions:
    from sevlaunch.flows.start_options import StartOptions

    return StartOptions(
        paused=request.paused,
        limit=request.limit,
        verification=verification,
        conditions=conditions,
        ready_limit=request.ready_limit,
    )


def _let_go(
    plans: list[Plan], request: Request, conditions: list[Condition], verification: Verification | None
) -> list[BroughtUp]:
    what = plans[0].name if len(plans) == 1 else f"{len(plans)} guests"
    # A signal in the midst of a start would leave what it has begun.
    with hold_signals(), begun(plans) as beginning:
        from sevlaunch.cli.interrupt import no_way_back, run
        from sevlaunch.flows.bring_up import bring_up

        work = bring_up(
            plans,
            beginning,
            options=_options(request, verification, conditions),
            keep=lambda evidence: _keep(evidence, request),
            no_way_back=no_way_back,
        )
        with progress(f"starting {what}"):
            return run(work)


def _stay(plan: Plan, request: Request, conditions: list[Condition], verification: Verification | None) -> None:
    from sevlaunch.cli.interrupt import run
    from sevlaunch.cli.status_text import show_guest
    from sevlaunch.flows.service import notify_service, stay
    from sevlaunch.guest.outcome import describe

    def launched(evidence: Evidence) -> None:
        _keep(evidence, request)
        if verification:
            note(f"sevlaunch: {plan.name} {verification.told}")
        show_guest(evidence, request.output)
        notify_service(f"READY=1\nSTATUS={plan.name} is {evidence.state}")

    def told(news: str) -> None:
        notify_service(f"STATUS={plan.name} {news}")
        note(f"sevlaunch: {plan.name} {news}")

    options = _options(request, verification, conditions)
    ended = run(stay(plan, options, launched=launched, told=told, down_limit=request.down_limit))
    note(f"sevlaunch: {plan.name} {describe(ended)}")


def _keep(evidence: Evidence, request: Request) -> None:
    if request.evidence_file:
        document = json.dumps(evidence.to_dict(), indent=1)
        write_whole(request.evidence_file.absolute(), f"{document}\n".encode())
