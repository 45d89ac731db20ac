"""Starting one guest or many, seeing that they are what was asked for, and letting go of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

from msgspec import Struct

from sevlaunch.errors import SevlaunchError
from sevlaunch.evidence import Evidence
from sevlaunch.flows.start_options import StartOptions
from sevlaunch.guest.many import launch_many
from sevlaunch.guest.starting import Start
from sevlaunch.plan.plan import Plan


class BroughtUp(Struct, frozen=True):
    """What became of one of the plans: what its launch showed, or an error."""

    name: str
    evidence: Evidence | None
    error: SevlaunchError | None = None


async def bring_up(
    plans: Sequence[Plan],
    begun: Start | None = None,
    *,
    options: StartOptions = StartOptions(),  # noqa: B008 - it can't be changed
    keep: Callable[[Evidence], None] = lambda _: None,
    no_way_back: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> list[BroughtUp]:
    """Start guests, see that they are what was asked for, and let go of them: they outlive this program.

    A cancellation ends all of them; an error of one ends that one alone.

    :param begun: the start of the one guest, as far as it has come: :func:`sevlaunch.flows.plans.begun`.
    :param keep: gets what each launch showed while all can still be taken back; when it raises, all are.
    :param no_way_back: entered for the moment of letting go, after which nothing is undone.
    :return: what became of each plan, in their order.
    """
    starting = launch_many(
        plans, begun, paused=options.launched_paused, limit=options.limit, prepare=options.reached_by
    )
    async with starting as outcomes:
        for one in outcomes:
            if one.guest:
                keep(one.guest.launch_evidence)
        finished = [
            BroughtUp(one.plan.name, one.guest.launch_evidence if one.guest else None, one.error) for one in outcomes
        ]
        with no_way_back():
            # A cancellation that came before this moment still counts.
            await asyncio.sleep(0)
            for one in outcomes:
                if one.guest:
                    one.guest.note_start(options.started())
                    one.guest.detach()
    return finished
