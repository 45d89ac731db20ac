"""What ``sevlaunch up`` does: profile -> host -> plan -> guest, then let go of it, or stay until it ends."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sevlaunch.cli.interrupt import no_way_back, run
from sevlaunch.cli.output import Format, note, progress
from sevlaunch.cli.show import show_guest
from sevlaunch.errors import HostError, UsageError
from sevlaunch.guest.folder import write_whole
from sevlaunch.guest.launch import launch
from sevlaunch.host.model import Host
from sevlaunch.host.probe import probe_host
from sevlaunch.host.requirements import missing, missing_for_rehearsal
from sevlaunch.plan import Plan, resolve
from sevlaunch.profile.loader import LoadedProfile, load

if TYPE_CHECKING:
    from sevlaunch.guest.live import LaunchedGuest

_WITHOUT_SEV = "try the launch with an emulated processor: --rehearse; or run it unencrypted: --set security=none"


@dataclass(frozen=True)
class Request:
    """The options of ``sevlaunch up``."""

    profile: Path
    name: str | None
    overrides: tuple[str, ...]
    paused: bool
    foreground: bool
    rehearse: bool
    evidence_file: Path | None
    limit: float | None
    output: Format


def start(request: Request) -> None:
    """Start the guest, print what its launch showed, and let go of it (or stay, with --foreground).

    :raise SevlaunchError: as :func:`sevlaunch.guest.launch.launch`.
    """
    plan = _make_plan(request)
    for warning in plan.warnings:
        note(f"sevlaunch: warning: {warning}")
    if plan.rehearsal:
        note("sevlaunch: REHEARSAL: memory is NOT encrypted")
    if request.foreground:
        run(_stay(plan, request))
        return
    if plan.reboot.value == "relaunch":
        note(f"sevlaunch: note: a reboot ends this {plan.guest_type} guest; only --foreground starts it anew")
    show_guest(run(_let_go(plan, request)), request.output)


def _make_plan(request: Request) -> Plan:
    loaded = load(request.profile, overrides=request.overrides, name=request.name)
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


async def _let_go(plan: Plan, request: Request) -> dict[str, Any]:
    with progress(f"starting {plan.name}"):
        async with launch(plan, paused=request.paused, limit=request.limit) as guest:
            document = _report(guest, request)
            with no_way_back():
                # A signal that came before this moment still cancels here.
                await asyncio.sleep(0)
                guest.detach()
    return document


async def _stay(plan: Plan, request: Request) -> None:
    while True:
        async with launch(plan, paused=request.paused, limit=request.limit) as guest:
            show_guest(_report(guest, request), request.output)
            guest.announce()
            reason = await guest.until_end()
        if reason != "guest-reset" or plan.reboot.value != "relaunch":
            note(f"sevlaunch: {plan.name} has ended" + (f" ({reason})" if reason else ""))
            return
        note(f"sevlaunch: {plan.name} rebooted: starting it anew")


def _report(guest: LaunchedGuest, request: Request) -> dict[str, Any]:
    document = guest.launch_evidence.to_dict()
    if request.evidence_file:
        write_whole(request.evidence_file.absolute(), (json.dumps(document, indent=1) + "\n").encode())
    return document
