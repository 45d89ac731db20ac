"""Was the launch right? The measurement is computed again and compared with the one in the evidence."""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from msgspec import Struct

from sevlaunch.errors import InsecureUse, UnsupportedError
from sevlaunch.guest_type import GuestType
from sevlaunch.owner.evidence import Evidence
from sevlaunch.owner.setup import Setup
from sevlaunch.profile.policy import SEV_POLICY, describe_policy
from sevlaunch.sevapi.measurement import measure

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


class Check(Struct, frozen=True):
    """One thing that was compared: ``ok`` is None where the evidence does not say it."""

    name: str
    ok: bool | None
    expected: str
    found: str


class Verdict(Struct, frozen=True):
    """The answer. ``matches``: the measurement is the expected one. ``vmsa``: the generation that it was made with."""

    checks: tuple[Check, ...]
    matches: bool
    vmsa: str
    rehearsal: bool

    @property
    def verified(self) -> bool:
        """Yes, only when nothing that was compared differs."""
        return self.matches and all(check.ok is not False for check in self.checks)


def check_verifiable(guest_type: GuestType, evidence: Evidence, *, rehearsal: bool = False) -> None:
    """Make sure that there is something to verify.

    :param guest_type: the expected type.
    :param rehearsal: evidence of a rehearsal is wanted, for the exercise.
    :raise InsecureUse: when it is a rehearsal, which proves nothing.
    :raise UnsupportedError: when this kind of launch has no measurement that an owner can verify.
    """
    if evidence.rehearsal and not rehearsal:
        raise InsecureUse(
            f"the evidence of {evidence.name} is that of a rehearsal: an emulated processor made the measurement, and "
            "memory is NOT encrypted",
            hint="to practise, say so: --rehearsal",
        )
    if not guest_type.measured_by_host or evidence.sev.type is GuestType.SEV_SNP:
        raise UnsupportedError(
            "the host's evidence of a SEV-SNP guest has no measurement: it is in the report that the guest fetches",
            hint="sevlaunch owner report FILE",
        )
    if evidence.sev.enabled and not evidence.measurement:
        raise UnsupportedError(
            f"the evidence of {evidence.name} has no measurement",
            hint="start the guest with --paused, and send its evidence then: sevlaunch evidence NAME",
        )


def verify(evidence: Evidence, expectation: Expectation, tik: bytes) -> Verdict:
    """Compare the evidence with what is expected; the evidence passes :func:`check_verifiable`.

    The measurement is computed with the expected policy, and with the API version and build of the evidence: the
    processor binds all three, so that a host that lies about them is found out.

    :param tik: the transport integrity key, 16 bytes.
    :raise UnsupportedError: when it does not match because the launch had no owner's session.
    """
    digests = candidates(evidence, expectation)
    computed = {name: _measure(evidence, expectation.policy, digest, tik) for name, digest in digests.items()}
    # Every candidate is compared, whichever matches: the time tells nothing.
    matching = [name for name, value in computed.items() if hmac.compare_digest(value, evidence.measure)]
    matches = bool(matching) and evidence.sev.enabled
    if not matches and evidence.sev.enabled and not evidence.has_session:
        raise UnsupportedError(
            f"{evidence.name} was launched without an owner's session: only the secure processor knows the key of its "
            "measurement, so that nobody can verify it",
            hint="make a session with `sevlaunch owner session`, and launch with security.dh_cert and security.session",
        )
    vmsa = matching[0] if matching else next(iter(digests))
    return Verdict(
        checks=tuple(_checks(evidence, expectation, digests[vmsa], computed[vmsa], matches)),
        matches=matches,
        vmsa=vmsa,
        rehearsal=evidence.rehearsal,
    )


def candidates(evidence: Evidence, expectation: Expectation) -> Mapping[str, bytes]:
    """The digests that are possible with the QEMU of the evidence; all, should it leave none."""
    if evidence.init2 is None:
        return expectation.digests
    name = "init2" if evidence.init2 else "es-init"
    return {name: expectation.digests[name]} if name in expectation.digests else expectation.digests


def _measure(evidence: Evidence, policy: int, digest: bytes, tik: bytes) -> bytes:
    sev = evidence.sev
    return measure(
        tik,
        api_major=sev.api_major or 0,
        api_minor=sev.api_minor or 0,
        build_id=sev.build_id or 0,
        policy=policy,
        digest=digest,
        mnonce=evidence.mnonce.ljust(16, b"\0"),
    )


def _checks(evidence: Evidence, expectation: Expectation, digest: bytes, computed: bytes, matches: bool) -> list[Check]:
    sev = evidence.sev
    api = (sev.api_major, sev.api_minor)
    known_api = (api[0], api[1]) if api[0] is not None and api[1] is not None else None
    minimum = expectation.minimum_api
    found_type = sev.type if sev.enabled else f"{sev.type}, not enabled"
    reported = evidence.firmware.sha256 if evidence.firmware else None
    checks = [
        Check("type", sev.enabled and sev.type == expectation.guest_type, expectation.guest_type, found_type),
        _check("firmware", expectation.firmware_sha256.hex(), reported),
        Check(
            "api version",
            known_api is not None and known_api >= minimum,
            f"{minimum[0]}.{minimum[1]} or newer",
            f"{known_api[0]}.{known_api[1]}" if known_api else "not told",
        ),
        Check("build", None, "any", "not told" if sev.build_id is None else str(sev.build_id)),
        Check("policy", sev.policy == expectation.policy, _policy_text(expectation.policy), _policy_text(sev.policy)),
    ]
    if expectation.vcpus is not None:
        found = None if evidence.vcpus is None else str(evidence.vcpus)
        checks.append(_check("vcpus", str(expectation.vcpus), found))
    checks.append(Check("digest", matches, digest.hex(), "the measured one" if matches else "another one"))
    checks.append(Check("measurement", matches, computed.hex(), evidence.measure.hex() or "none"))
    return checks


def _check(name: str, expected: str, found: str | None) -> Check:
    return Check(name, None if found is None else found == expected, expected, "not told" if found is None else found)


def _policy_text(policy: int | None) -> str:
    if policy is None:
        return "none"
    return f"{policy:#x} ({', '.join(describe_policy(policy, SEV_POLICY)) or 'no bits'})"
