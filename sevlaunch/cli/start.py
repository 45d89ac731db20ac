"""What ``sevlaunch up`` does: profile -> host -> plan -> guest, then let go of it, or stay until it ends."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sevlaunch.cli.interrupt import no_way_back, run
from sevlaunch.cli.output import Format, note, progress
from sevlaunch.cli.show import show_guest
from sevlaunch.errors import HostError, UsageError
from sevlaunch.guest.folder import write_whole
from sevlaunch.guest.launch import Launched, launch
from sevlaunch.guest.service import RebootLimit, notify_service
from sevlaunch.host.model import Host
from sevlaunch.host.probe import probe_host
from sevlaunch.host.requirements import missing, missing_for_rehearsal
from sevlaunch.plan import Plan, resolve
from sevlaunch.profile.loader import LoadedProfile, load

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
    from sevlaunch.rehearsal.seccomp import check_available

    profile = loaded.profile
    if profile.security.type == "none":
        raise UsageError(
            f"{profile.name} has no security to rehearse", hint="leave --rehearse out, or set security.type"
        )
    lacking = missing_for_rehearsal(profile.security.type, host)
    if lacking:
        raise HostError(f"this host can't rehearse {profile.name} ({profile.security.type})", problems=lacking)
    check_available()
    return resolve(loaded, host, rehearse=True)


async def _let_go(plan: Plan, request: Request) -> dict[str, Any]:
    with progress(f"starting {plan.name}"):
        async with launch(plan, paused=request.paused, limit=request.limit) as launched:
            document = _report(launched, request)
            with no_way_back():
                # A signal that came before this moment still cancels here.
                await asyncio.sleep(0)
                launched.detach()
    return document


async def _stay(plan: Plan, request: Request) -> None:
    reboots = RebootLimit()
    while True:
        async with launch(plan, paused=request.paused, limit=request.limit) as launched:
            document = _report(launched, request)
            show_guest(document, request.output)
            launched.announce()
            notify_service(f"READY=1\nSTATUS={plan.name} is {document['state']}")
            reason = await launched.until_end()
        if reason != "guest-reset" or plan.reboot.value != "relaunch":
            note(f"sevlaunch: {plan.name} has ended" + (f" ({reason})" if reason else ""))
            return
        reboots.count(plan.name)
        notify_service(f"STATUS={plan.name} rebooted: starting it anew")
        note(f"sevlaunch: {plan.name} rebooted: starting it anew")


def _report(launched: Launched, request: Request) -> dict[str, Any]:
    document = launched.evidence.to_dict()
    if request.evidence_file:
        write_whole(request.evidence_file.absolute(), (json.dumps(document, indent=1) + "\n").encode())
    return document
