"""``up --verify``: launch paused, verify against the same plan, inject, resume; on any doubt the guest ends."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sevlaunch.errors import Problem, SevlaunchError, UsageError
from sevlaunch.flows.plans import Planned
from sevlaunch.owner.checks import Verdict
from sevlaunch.owner.claims import parse_claims
from sevlaunch.owner.lock import lock_plan
from sevlaunch.owner.secret import Secret, wrap_secrets
from sevlaunch.owner.verify import Expectation, verify_launch
from sevlaunch.plan.plan import Plan
from sevlaunch.sevapi.session import TransportKeys

if TYPE_CHECKING:
    from sevlaunch.guest.guest import LaunchedGuest


@dataclass(frozen=True, repr=False)
class Verification:
    """What a launch has to show, and what the guest gets for it."""

    expectation: Expectation
    keys: TransportKeys
    secrets: tuple[Secret, ...]

    async def pass_or_raise(self, guest: LaunchedGuest) -> None:
        """Verify the paused guest, give it its secrets, and let it run.

        :raise SevlaunchError: when the launch is not the expected one.
        """
        claims = parse_claims(json.dumps(guest.launch_evidence.to_dict()).encode(), guest.name)
        verdict = verify_launch(claims, self.expectation, self.keys.tik, rehearsal=claims.rehearsal)
        if not verdict.verified:
            raise _refusal(guest.name, verdict)
        if self.secrets:
            packet = wrap_secrets(self.secrets, self.keys, claims, verdict)
            header, payload = (base64.b64encode(part).decode() for part in (packet.header, packet.payload))
            await guest.inject_secret(header, payload)
        await guest.run()


def plan_verification(planned: Planned, keys: TransportKeys, secrets: Sequence[Secret] = ()) -> Verification:
    """The verification of a plan; reads the files that are measured, before QEMU does.

    :param keys: those of the owner's session that the profile names; without a TEK, ``b""``, no secret can be given.
    :param secrets: what the guest gets once it is verified.
    :raise UsageError: when there is nothing that the host could verify, or a file can't be read.
    """
    check_measured(planned.plan)
    return Verification(lock_plan(planned.loaded, planned.plan).expectation(), keys, tuple(secrets))


def check_measured(plan: Plan) -> None:
    """Make sure that the host asks for the launch measurement of a plan.

    :raise UsageError: when it does not.
    """
    if not plan.guest_type.measured_by_host:
        raise UsageError(
            f"--verify is for SEV and SEV-ES guests, {plan.name} is {plan.guest_type}",
            hint="an SNP guest fetches its report itself; with an id_block the processor refuses any other launch",
        )


def _refusal(name: str, verdict: Verdict) -> SevlaunchError:
    wrong = [check for check in verdict.checks if check.ok is False]
    return SevlaunchError(
        f"{name} is not what the plan says, and was ended",
        problems=[Problem(f"{check.name}: {check.detail}") for check in wrong],
        hint="was a file changed in this moment, or the session made for another policy?",
    )
