"""What ``sevlaunch up`` does: profile -> host -> plan -> guest.

One guest's QEMU is started before what is asynchronous is imported, which takes as long as QEMU.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from sevlaunch.atomic import write_whole
from sevlaunch.cli.output import Format, note
from sevlaunch.cli.signals import hold_signals
from sevlaunch.errors import HostError, UsageError
from sevlaunch.guest.starting import started
from sevlaunch.host.model import Host
from sevlaunch.host.probe import probe_host
from sevlaunch.host.requirements import missing, missing_for_rehearsal
from sevlaunch.plan import Plan, resolve
from sevlaunch.profile.loader import LoadedProfile, load

if TYPE_CHECKING:
    from sevlaunch.cli.show import Finished
    from sevlaunch.cli.verification import Verification
    from sevlaunch.guest.readiness import Condition

_WITHOUT_SEV = "try the launch with an emulated processor: --rehearse; or run it unencrypted: --set security=none"


class Request(Struct, frozen=True):
    """The options of ``sevlaunch up``."""

    profiles: tuple[Path, ...]
    name: str | None
    count: int | None
    overrides: tuple[str, ...]
    paused: bool
    foreground: bool
    rehearse: bool
    evidence_file: Path | None
    lock_file: Path | None
    verify: bool
    tik: Path | None
    tek: Path | None
    secrets: tuple[str, ...]
    limit: float | None
    conditions: tuple[str, ...]
    ready_limit: float
    output: Format

    @property
    def single(self) -> bool:
        """Whether it is about one guest, and its output too."""
        return len(self.profiles) == 1 and self.count is None


class Made(Struct, frozen=True):
    """A plan, and the profile that it was made from."""

    loaded: LoadedProfile
    plan: Plan


def start(request: Request) -> None:
    """Start the guests, print what their launches showed, and let go of them (or stay, with --foreground).

    :raise SevlaunchError: as :func:`sevlaunch.guest.launch.launch`; of several guests, the first one's error.
    """
    _check(request)
    conditions = _conditions(request)
    made = [
        _make(request, load(profile, overrides=request.overrides, name=name))
        for profile in request.profiles
        for name in ([request.name] if request.count is None else _numbered(profile, request))
    ]
    plans = [one.plan for one in made]
    verification = _verification(request, made[0])
    if request.lock_file:
        from sevlaunch.owner.lock import lock_plan

        write_whole(request.lock_file.absolute(), lock_plan(made[0].loaded, made[0].plan).to_json().encode())
    for warning in dict.fromkeys(warning for plan in plans for warning in plan.warnings):
        note(f"sevlaunch: warning: {warning}")
    if request.rehearse:
        note("sevlaunch: REHEARSAL: memory is NOT encrypted")
    if request.foreground:
        from sevlaunch.cli.interrupt import run
        from sevlaunch.cli.running import stay

        run(stay(plans[0], request))
        return
    for plan in plans:
        if plan.reboot.value == "relaunch":
            note(f"sevlaunch: note: a reboot ends {plan.name} ({plan.guest_type}); only --foreground starts it anew")
    finished = _let_go(plans, request, conditions, verification)
    from sevlaunch.cli.show import show_guest, show_started

    if request.single and finished[0].document:
        show_guest(finished[0].document, request.output)
    elif not request.single:
        show_started(finished, request.output)
    for one in finished:
        if one.error:
            raise one.error


def _check(request: Request) -> None:
    if request.verify and (request.paused or request.foreground):
        raise UsageError("--verify lets the guest run, or ends it", hint="leave --paused and --foreground out")
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


def _numbered(profile: Path, request: Request) -> list[str]:
    base = load(profile, overrides=request.overrides, name=request.name).profile.name
    return [f"{base}-{number}" for number in range(1, (request.count or 1) + 1)]


def _make(request: Request, loaded: LoadedProfile) -> Made:
    return Made(loaded, _make_plan(request, loaded))


def _make_plan(request: Request, loaded: LoadedProfile) -> Plan:
    profile = loaded.profile
    host = probe_host(profile.qemu.binary)
    if request.rehearse:
        return _make_rehearsal(loaded, host)
    lacking = missing(profile.security.type, profile.accel, host)
    if lacking:
        raise HostError(
            f"this host can't run {profile.name} ({profile.security.type})",
            problems=lacking,
            hint="" if profile.security.type == "none" else _WITHOUT_SEV,
        )
    return resolve(loaded, host)


def _make_rehearsal(loaded: LoadedProfile, host: Host) -> Plan:
    from sevlaunch.rehearsal.available import check_available

    profile = loaded.profile
    if profile.security.type == "none":
        raise UsageError(
            f"{profile.name} has no security to rehearse", hint="leave --rehearse out, or set security.type"
        )
    lacking = missing_for_rehearsal(host)
    if lacking:
        raise HostError(f"this host can't rehearse {profile.name} ({profile.security.type})", problems=lacking)
    plan = resolve(loaded, host, rehearse=True)
    check_available(traced=bool(plan.security and plan.security.init2), snp=plan.guest_type == "sev-snp")
    return plan


def _verification(request: Request, made: Made) -> Verification | None:
    if not request.verify:
        return None
    from sevlaunch.cli.verification import prepare

    return prepare(made.loaded, made.plan, request.tik, request.tek, request.secrets)


def _let_go(
    plans: list[Plan], request: Request, conditions: list[Condition], verification: Verification | None
) -> list[Finished]:
    with ExitStack() as stack:
        begun = None
        if len(plans) == 1:
            # A signal in the midst of a start would leave what it has begun.
            stack.enter_context(hold_signals())
            begun = stack.enter_context(started(plans[0]))
        from sevlaunch.cli.interrupt import run
        from sevlaunch.cli.running import let_go

        return run(let_go(plans, request, begun, conditions, verification))
