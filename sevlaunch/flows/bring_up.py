"""Starting one guest or many, seeing that they are what was asked for, and letting go of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from msgspec import Struct

from sevlaunch.errors import SevlaunchError
from sevlaunch.evidence import Evidence
from sevlaunch.guest.many import launch_many
from sevlaunch.guest.readiness import READY_LIMIT, Condition, wait_until_ready
from sevlaunch.guest.starting import Start
from sevlaunch.plan.plan import Plan

if TYPE_CHECKING:
    from sevlaunch.flows.verification import Verification
    from sevlaunch.guest.guest import LaunchedGuest


class BroughtUp(Struct, frozen=True):
    """What became of one of the plans: what its launch showed, or an error."""

    name: str
    evidence: Evidence | None
    error: SevlaunchError | None = None


class Wanted(Struct, frozen=True):
    """What a guest has to go through before it is let go; it ends when that fails.

    :param paused: leave it before its first instruction.
    :param limit: seconds for the start; default: a minute, and more with much memory.
    :param verification: its launch has to pass; it is given its secrets and runs then.
    :param conditions: what it has to reach, each within ``ready_limit`` seconds.
    """

    paused: bool = False
    limit: float | None = None
    verification: Verification | None = None
    conditions: Sequence[Condition] = ()
    ready_limit: float = READY_LIMIT

    @property
    def launched_paused(self) -> bool:
        """Whether the launch stops before the first instruction."""
        return self.paused or self.verification is not None

    async def reached_by(self, guest: LaunchedGuest) -> None:
        """See that ``guest`` is what is wanted.

        :raise SevlaunchError: when it is not.
        """
        if self.verification:
            await self.verification.pass_or_raise(guest)
        for condition in self.conditions:
            await wait_until_ready(guest, condition, limit=self.ready_limit)


async def bring_up(
    plans: Sequence[Plan],
    begun: Start | None = None,
    *,
    wanted: Wanted = Wanted(),  # noqa: B008 - it can't be changed
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
    starting = launch_many(plans, begun, paused=wanted.launched_paused, limit=wanted.limit, prepare=wanted.reached_by)
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
                    one.guest.detach()
    return finished
