"""The part of ``sevlaunch up`` that waits: until the guests run, or, with --foreground, until one ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sevlaunch.atomic import write_whole
from sevlaunch.cli.interrupt import no_way_back
from sevlaunch.cli.output import note, progress
from sevlaunch.cli.show import Finished, show_guest
from sevlaunch.guest.launch import launch
from sevlaunch.guest.many import launch_many
from sevlaunch.guest.starting import Start
from sevlaunch.plan import Plan

if TYPE_CHECKING:
    from sevlaunch.cli.start import Request
    from sevlaunch.cli.verification import Verification
    from sevlaunch.guest.live import LaunchedGuest
    from sevlaunch.guest.readiness import Condition


async def let_go(
    plans: Sequence[Plan],
    request: Request,
    begun: Start | None,
    conditions: Sequence[Condition],
    verification: Verification | None,
) -> list[Finished]:
    """Start the guests, see that they are what was asked for, and let go of them.

    :param begun: the start of the one guest, as far as it has come; None for several.
    :return: what became of each plan, in their order.
    """

    async def prepare(guest: LaunchedGuest) -> None:
        if verification:
            await verification.pass_or_raise(guest)
        if conditions:
            from sevlaunch.guest.readiness import wait_until_ready

            for condition in conditions:
                await wait_until_ready(guest, condition, limit=request.ready_limit)

    paused = request.paused or verification is not None
    what = plans[0].name if len(plans) == 1 else f"{len(plans)} guests"
    with progress(f"starting {what}"):
        async with launch_many(plans, begun, paused=paused, limit=request.limit, prepare=prepare) as outcomes:
            finished = [
                Finished(one.plan.name, _report(one.guest, request) if one.guest else None, one.error)
                for one in outcomes
            ]
            with no_way_back():
                # A signal that came before this moment still cancels here.
                await asyncio.sleep(0)
                for one in outcomes:
                    if one.guest:
                        one.guest.detach()
    return finished


async def stay(plan: Plan, request: Request) -> None:
    """Start the guest and stay until it ends; where its plan says so, start it anew when it reboots."""
    from sevlaunch.guest.service import RebootLimit, notify_service

    reboots = RebootLimit()
    while True:
        async with launch(plan, paused=request.paused, limit=request.limit) as guest:
            document = _report(guest, request)
            show_guest(document, request.output)
            guest.announce()
            notify_service(f"READY=1\nSTATUS={plan.name} is {document['state']}")
            reason = await guest.until_end()
        if reason != "guest-reset" or plan.reboot.value != "relaunch":
            note(f"sevlaunch: {plan.name} has ended" + (f" ({reason})" if reason else ""))
            return
        reboots.count(plan.name)
        notify_service(f"STATUS={plan.name} rebooted: starting it anew")
        note(f"sevlaunch: {plan.name} rebooted: starting it anew")


def _report(guest: LaunchedGuest, request: Request) -> dict[str, Any]:
    document = guest.launch_evidence.to_dict()
    if request.evidence_file:
        write_whole(request.evidence_file.absolute(), (json.dumps(document, indent=1) + "\n").encode())
    return document
