"""What a guest has to go through at its start, whichever flow starts it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from sevlaunch.guest.readiness import READY_LIMIT, Condition, wait_until_ready
from sevlaunch.guest.record import Started

if TYPE_CHECKING:
    from sevlaunch.flows.verification import Verification
    from sevlaunch.guest.guest import LaunchedGuest


class StartOptions(Struct, frozen=True):
    """How a guest is started, and what it has to reach then; it ends when it does not.

    :param paused: leave it before its first instruction.
    :param limit: seconds for the launch; default: a minute, and more with much memory.
    :param verification: what its launch has to pass, before the first instruction; it is given its secrets then.
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

    def started(self, *, foreground: bool = False) -> Started:
        """How a guest is started with these, for whoever starts it again."""
        verified = self.verification is not None
        return Started(paused=self.paused, verified=verified, foreground=foreground, limit=self.limit)

    async def reached_by(self, guest: LaunchedGuest) -> None:
        """See that ``guest``, launched so, is what is wanted, and runs unless it is to be paused.

        :raise SevlaunchError: when it is not.
        """
        if self.verification:
            await self.verification.pass_or_raise(guest)
        for condition in self.conditions:
            await wait_until_ready(guest, condition, limit=self.ready_limit)
        guest.check_helpers()
