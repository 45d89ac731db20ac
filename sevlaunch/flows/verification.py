"""``up --verify``: launch paused, verify against the same plan, inject, resume; on any doubt the guest ends."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sevlaunch.errors import Problem, SevlaunchError, UsageError
from sevlaunch.files import read_blob
from sevlaunch.owner.checks import Verdict
from sevlaunch.owner.claims import parse_claims
from sevlaunch.owner.lock import lock_plan
from sevlaunch.owner.secret import Secret, make_packet, read_secret
from sevlaunch.owner.verify import Expectation, check_verifiable, verify
from sevlaunch.plan.plan import Plan
from sevlaunch.profile.loader import LoadedProfile
from sevlaunch.sevapi.session import KEY_BYTES, TransportKeys

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
        check_verifiable(self.expectation.guest_type, claims, rehearsal=claims.rehearsal)
        verdict = verify(claims, self.expectation, self.keys.tik)
        if not verdict.verified:
            raise _refusal(guest.name, verdict)
        if self.secrets:
            packet = make_packet(self.secrets, self.keys, claims.measure)
            header, payload = (base64.b64encode(part).decode() for part in (packet.header, packet.payload))
            await guest.inject_secret(header, payload)
        await guest.run()


def prepare(
    loaded: LoadedProfile, plan: Plan, tik: Path | None, tek: Path | None, secrets: tuple[str, ...]
) -> Verification:
    """The verification of a plan; reads the files that are measured, before QEMU does.

    :raise UsageError: when a key is missing, or there is nothing to verify.
    """
    if not plan.guest_type.measured_by_host:
        raise UsageError(
            f"--verify is for SEV and SEV-ES guests, {plan.name} is {plan.guest_type}",
            hint="an SNP guest fetches its report itself; with an id_block the processor refuses any other launch",
        )
    if tik is None or (secrets and tek is None):
        raise UsageError(
            "--verify needs --tik, and --secret needs --tek, too", hint="sevlaunch owner session makes them"
        )
    keys = TransportKeys(tek=read_blob(tek, "TEK", [KEY_BYTES]) if tek else b"", tik=read_blob(tik, "TIK", [KEY_BYTES]))
    expectation = lock_plan(loaded, plan).expectation()
    return Verification(expectation, keys, tuple(read_secret(text) for text in secrets))


def _refusal(name: str, verdict: Verdict) -> SevlaunchError:
    wrong = [check for check in verdict.checks if check.ok is False]
    return SevlaunchError(
        f"{name} is not what the plan says, and was ended",
        problems=[Problem(f"{check.name}: {check.detail}") for check in wrong],
        hint="was a file changed in this moment, or the session made for another policy?",
    )
