"""Was the launch right? The measurement is computed again and compared with the one in the evidence."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import TYPE_CHECKING

from msgspec import Struct

from sevlaunch.errors import InsecureUse, UnsupportedError
from sevlaunch.guest_type import GuestType
from sevlaunch.owner.checks import Check, Verdict
from sevlaunch.owner.claims import HostClaims
from sevlaunch.profile.policy import SEV_POLICY, describe_policy
from sevlaunch.sevapi.measurement import measure

if TYPE_CHECKING:
    from sevlaunch.owner.setup import Setup

REHEARSAL = "REHEARSAL: memory is NOT encrypted"


class Expectation(Struct, frozen=True):
    """What the evidence has to show.

    ``digests``: launch digests of 32 bytes that are as good as each other, by the name of the VMSA generation.
    ``firmware_sha256``: 32 bytes. ``vcpus``: None where the type does not measure them. ``minimum_api``: major, minor.
    """

    guest_type: GuestType
    policy: int
    digests: Mapping[str, bytes]
    firmware_sha256: bytes
    vcpus: int | None
    minimum_api: tuple[int, int]

    @classmethod
    def of_setup(cls, setup: Setup, minimum_api: tuple[int, int] = (0, 0)) -> Expectation:
        """The expectation that ``setup`` amounts to."""
        return cls(
            guest_type=setup.launch.guest_type,
            policy=setup.policy,
            digests=setup.digests(),
            firmware_sha256=setup.launch.firmware.sha256,
            vcpus=setup.launch.vcpus if setup.launch.guest_type.encrypts_registers else None,
            minimum_api=minimum_api,
        )


class LaunchVerdict(Verdict, frozen=True):
    """The answer about a launch.

    ``matches``: the measurement is the expected one. ``vmsa``: the generation that it was made with. A check is None
    where the evidence does not say it: the measurement binds that, too.
    """

    matches: bool
    vmsa: str
    rehearsal: bool

    @property
    def verified(self) -> bool:
        """Yes, only when nothing that was compared differs."""
        return self.matches and not self.failed


def check_verifiable(guest_type: GuestType, claims: HostClaims, *, rehearsal: bool = False) -> None:
    """Make sure that there is something to verify.

    :param guest_type: the expected type.
    :param rehearsal: evidence of a rehearsal is wanted, for the exercise.
    :raise InsecureUse: when it is a rehearsal, which proves nothing.
    :raise UnsupportedError: when this kind of launch has no measurement that an owner can verify.
    """
    if claims.rehearsal and not rehearsal:
        raise InsecureUse(
            f"the evidence of {claims.name} is that of a rehearsal: an emulated processor made the measurement, and "
            "memory is NOT encrypted",
            hint="to practise, say so: --rehearsal",
        )
    if not guest_type.measured_by_host or claims.sev.type is GuestType.SEV_SNP:
        raise UnsupportedError(
            "the host's evidence of a SEV-SNP guest has no measurement: it is in the report that the guest fetches",
            hint="sevlaunch owner report FILE",
        )
    if claims.sev.enabled and not claims.measurement:
        raise UnsupportedError(
            f"the evidence of {claims.name} has no measurement",
            hint="start the guest with --paused, and send its evidence then: sevlaunch evidence NAME",
        )


def verify_launch(
    claims: HostClaims, expectation: Expectation, tik: bytes, *, rehearsal: bool = False
) -> LaunchVerdict:
    """Compare the claims with what is expected.

    The measurement is computed with the expected policy, and with the API version and build that are claimed: the
    processor binds all three, so that a host that lies about them is found out.

    :param tik: the transport integrity key, 16 bytes.
    :param rehearsal: as :func:`check_verifiable`, whose errors are raised, too.
    :raise UnsupportedError: when it does not match because the launch had no owner's session.
    """
    check_verifiable(expectation.guest_type, claims, rehearsal=rehearsal)
    digests = candidates(claims, expectation)
    computed = {name: _measure(claims, expectation.policy, digest, tik) for name, digest in digests.items()}
    # Every candidate is compared, whichever matches: the time tells nothing.
    matching = [name for name, value in computed.items() if hmac.compare_digest(value, claims.measure)]
    matches = bool(matching) and claims.sev.enabled
    if not matches and claims.sev.enabled and not claims.has_session:
        raise UnsupportedError(
            f"{claims.name} was launched without an owner's session: only the secure processor knows the key of its "
            "measurement, so that nobody can verify it",
            hint="make a session with `sevlaunch owner session`, and launch with security.dh_cert and security.session",
        )
    vmsa = matching[0] if matching else next(iter(digests))
    return LaunchVerdict(
        checks=tuple(_checks(claims, expectation, digests[vmsa], computed[vmsa], matches)),
        matches=matches,
        vmsa=vmsa,
        rehearsal=claims.rehearsal,
    )


def candidates(claims: HostClaims, expectation: Expectation) -> Mapping[str, bytes]:
    """The digests that are possible with the QEMU that is claimed; all, should it leave none."""
    if claims.init2 is None:
        return expectation.digests
    name = "init2" if claims.init2 else "es-init"
    return {name: expectation.digests[name]} if name in expectation.digests else expectation.digests


def _measure(claims: HostClaims, policy: int, digest: bytes, tik: bytes) -> bytes:
    sev = claims.sev
    return measure(
        tik,
        api_major=sev.api_major or 0,
        api_minor=sev.api_minor or 0,
        build_id=sev.build_id or 0,
        policy=policy,
        digest=digest,
        mnonce=claims.mnonce.ljust(16, b"\0"),
    )


def _checks(claims: HostClaims, expectation: Expectation, digest: bytes, computed: bytes, matches: bool) -> list[Check]:
    sev = claims.sev
    api = (sev.api_major, sev.api_minor)
    known_api = (api[0], api[1]) if api[0] is not None and api[1] is not None else None
    minimum = expectation.minimum_api
    found_type = sev.type if sev.enabled else f"{sev.type}, not enabled"
    reported = claims.firmware.sha256 if claims.firmware else None
    checks = [
        Check.compared("type", sev.enabled and sev.type == expectation.guest_type, expectation.guest_type, found_type),
        _check("firmware", expectation.firmware_sha256.hex(), reported),
        Check.compared(
            "api version",
            known_api is not None and known_api >= minimum,
            f"{minimum[0]}.{minimum[1]} or newer",
            f"{known_api[0]}.{known_api[1]}" if known_api else "not told",
        ),
        Check.compared("build", None, "any", "not told" if sev.build_id is None else str(sev.build_id)),
        Check.compared(
            "policy", sev.policy == expectation.policy, _policy_text(expectation.policy), _policy_text(sev.policy)
        ),
    ]
    if expectation.vcpus is not None:
        found = None if claims.vcpus is None else str(claims.vcpus)
        checks.append(_check("vcpus", str(expectation.vcpus), found))
    checks.append(Check.compared("digest", matches, digest.hex(), "the measured one" if matches else "another one"))
    checks.append(Check.compared("measurement", matches, computed.hex(), claims.measure.hex() or "none"))
    return checks


def _check(name: str, expected: str, found: str | None) -> Check:
    ok = None if found is None else found == expected
    return Check.compared(name, ok, expected, "not told" if found is None else found)


def _policy_text(policy: int | None) -> str:
    if policy is None:
        return "none"
    return f"{policy:#x} ({', '.join(describe_policy(policy, SEV_POLICY)) or 'no bits'})"
