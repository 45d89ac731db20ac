"""``up --verify``: launch paused, verify against the same plan, inject, resume; on any doubt the guest ends."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from sevlaunch.errors import Problem, SevlaunchError, UsageError
from sevlaunch.flows.completion import check_id_block
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


class Verification(Protocol):
    """What a launch has to pass before the guest runs."""

    @property
    def told(self) -> str:
        """What a launch that passed it is, for the host's user, as the rest of a sentence about the guest."""

    async def pass_or_raise(self, guest: LaunchedGuest) -> None:
        """Verify the paused guest, and let it run.

        :raise SevlaunchError: when the launch is not the expected one.
        """


class IdBlockVerification(Struct, frozen=True):
    """An SNP launch whose ID block is that of its plan: the secure processor compares, and lets nothing else run.

    What comes of it is the host's knowledge alone: an owner believes the guest's own report, which shows MEASUREMENT
    and ID_KEY_DIGEST.
    """

    told = (
        "is the launch that its ID block names, or the processor had not let it run; its owner still has to see the "
        "guest's report (MEASUREMENT, ID_KEY_DIGEST)"
    )

    async def pass_or_raise(self, guest: LaunchedGuest) -> None:
        """Let the paused guest run, which the processor's LAUNCH_FINISH comes before.

        :raise QemuError: when the processor refuses it, with which QEMU ends.
        """
        await guest.run()
        state = guest.launch_evidence.sev.state
        if state != "running":
            raise SevlaunchError(f"{guest.name}: wanted an SNP guest that runs, QEMU says {state}")


@dataclass(frozen=True, repr=False)
class MeasuredVerification:
    """What the measurement of a SEV or SEV-ES launch has to be, and what the guest gets for it."""

    expectation: Expectation
    keys: TransportKeys
    secrets: tuple[Secret, ...]

    told = "is verified: on the host that runs it this is a test, not a proof"

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


def plan_verification(
    planned: Planned, keys: TransportKeys | None = None, secrets: Sequence[Secret] = ()
) -> Verification:
    """The verification of a plan; reads the files that are measured, before QEMU does.

    :param keys: those of the owner's session that the profile names; without a TEK, ``b""``, no secret can be given.
        None: an SNP guest, which has no session, and whose ID block the processor compares.
    :param secrets: what the guest gets once it is verified.
    :raise UsageError: when there is nothing that the host could verify, or a file can't be read.
    """
    plan = planned.plan
    check_verifiable(plan, session=keys is not None or bool(secrets))
    if keys is None:
        check_id_block(planned.loaded, plan)
        return IdBlockVerification()
    return MeasuredVerification(lock_plan(planned.loaded, plan).expectation(), keys, tuple(secrets))


def check_verifiable(plan: Plan, *, session: bool) -> None:
    """Make sure that a launch of this type can be verified before it runs.

    :param session: whether there are keys of an owner's session, or secrets for the guest.
    :raise UsageError: when it can't, or not with these.
    """
    if not plan.guest_type.encrypted:
        raise UsageError(
            f"--verify is for encrypted guests, {plan.name} is {plan.guest_type}", hint="set security.type"
        )
    if session and not plan.guest_type.measured_by_host:
        raise UsageError(
            f"--tik, --tek and --secret go with SEV and SEV-ES launches, {plan.name} is {plan.guest_type}",
            hint="leave them out: its ID block is compared; secrets go to the guest once its report is checked",
        )
    if plan.guest_type.measured_by_host and not session:
        raise UsageError("--verify needs --tik", hint="sevlaunch owner session makes it")


def _refusal(name: str, verdict: Verdict) -> SevlaunchError:
    wrong = [check for check in verdict.checks if check.ok is False]
    return SevlaunchError(
        f"{name} is not what the plan says, and was ended",
        problems=[Problem(f"{check.name}: {check.detail}") for check in wrong],
        hint="was a file changed in this moment, or the session made for another policy?",
    )
