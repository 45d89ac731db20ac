"""The emulated secure processor for SEV and SEV-ES: a state machine over bytes, AMD 55766.

Each command takes and returns what the SEV API says, or raises :class:`FirmwareError` with its status code. Nothing is
encrypted.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable, Iterable
from enum import IntEnum

from sevlaunch.profile.policy import SEV_ES, SEV_NO_KEY_SHARING, SEV_POLICY
from sevlaunch.rehearsal.platform import API_MAJOR, API_MINOR, BUILD_ID, Platform
from sevlaunch.sevapi import ecdsa
from sevlaunch.sevapi.measurement import MNONCE_BYTES, measure
from sevlaunch.sevapi.session import KEY_BYTES, TransportKeys
from sevlaunch.sevapi.status import FirmwareError, Status

MAX_GUESTS = 64

# Attestation report, AMD 55766 "ATTESTATION": what is signed (nonce, digest, policy), then usage, algorithm, r and s.
_REPORT_SIGNED = struct.Struct("<16s32sI")
_REPORT_TAIL = struct.Struct(f"<III{2 * ecdsa.COORDINATE}s")
REPORT_BYTES = _REPORT_SIGNED.size + _REPORT_TAIL.size


class GuestState(IntEnum):
    """GSTATE of the SEV API."""

    UNINIT = 0
    LUPDATE = 1
    LSECRET = 2
    RUNNING = 3


class GuestContext:
    """What the processor keeps of a guest."""

    def __init__(self, policy: int, keys: TransportKeys) -> None:
        self.policy = policy
        self.keys = keys
        self.state = GuestState.LUPDATE
        self.digest = hashlib.sha256()
        self.measure = b""

    @property
    def is_es(self) -> bool:
        """Whether the policy asks for SEV-ES."""
        return bool(self.policy & SEV_ES)

    def require(self, *states: GuestState) -> None:
        """:raise FirmwareError: INVALID_GUEST_STATE unless the guest is in one of ``states``."""
        if self.state not in states:
            raise FirmwareError(Status.INVALID_GUEST_STATE)


class SecureProcessor:
    """The processor of one emulated platform.

    :param es_enabled: whether the platform is configured for SEV-ES.
    :param random: where its random bytes come from.
    """

    def __init__(
        self, platform: Platform, *, es_enabled: bool = True, random: Callable[[int], bytes] = os.urandom
    ) -> None:
        self._platform = platform
        self._es_enabled = es_enabled
        self._random = random
        self._guests: dict[int, GuestContext] = {}
        self._next_handle = 1

    @property
    def es_enabled(self) -> bool:
        """Whether the platform is configured for SEV-ES."""
        return self._es_enabled

    @property
    def guest_count(self) -> int:
        """How many guests there are."""
        return len(self._guests)

    def pdh_cert_export(self) -> tuple[bytes, bytes]:
        """The PDH certificate (2084 bytes) and the chain PEK, OCA, CEK (6252 bytes)."""
        chain = b"".join(certificate.to_bytes() for certificate in self._platform.chain)
        return self._platform.pdh_certificate.to_bytes(), chain

    def chip_id(self) -> bytes:
        """The answer to GET_ID2: 64 bytes."""
        return self._platform.chip_id

    def launch_start(self, policy: int, dh_cert: bytes, session: bytes, handle: int = 0) -> int:
        """Begin a launch; the handle of the new guest.

        Without certificate and session the processor makes the transport keys itself, and nobody knows them.
        """
        self._check_policy(policy)
        if len(self._guests) >= MAX_GUESTS:
            raise FirmwareError(Status.RESOURCE_LIMIT)
        if handle:
            self._check_sharing(policy, handle)
        if bool(dh_cert) != bool(session):
            raise FirmwareError(Status.INVALID_LENGTH)
        if session:
            # Certificates, keys and secrets take as long to import as all the rest: most launches have none.
            from sevlaunch.sevapi.certificate import Certificate, Usage
            from sevlaunch.sevapi.session import agree, unwrap

            owner = Certificate.from_bytes(dh_cert)
            if owner.usage != Usage.PDH:
                raise FirmwareError(Status.INVALID_CERTIFICATE)
            keys = unwrap(session, policy, agree(self._platform.pdh, owner.public_key))
        else:
            keys = TransportKeys(self._random(KEY_BYTES), self._random(KEY_BYTES))
        new = self._next_handle
        self._next_handle += 1
        self._guests[new] = GuestContext(policy, keys)
        return new

    def launch_update_data(self, handle: int, content: Iterable[bytes]) -> None:
        """Measure memory, given in pieces."""
        guest = self._guest(handle)
        guest.require(GuestState.LUPDATE)
        for piece in content:
            guest.digest.update(piece)

    def launch_update_vmsa(self, handle: int, pages: Iterable[bytes]) -> None:
        """Measure the vCPUs' pages of a SEV-ES guest."""
        guest = self._guest(handle)
        guest.require(GuestState.LUPDATE)
        if not guest.is_es:
            raise FirmwareError(Status.UNSUPPORTED)
        for page in pages:
            guest.digest.update(page)

    def launch_measure(self, handle: int) -> bytes:
        """MEASURE (32 bytes) and MNONCE (16); the guest is ready for secrets."""
        guest = self._guest(handle)
        guest.require(GuestState.LUPDATE)
        mnonce = self._random(MNONCE_BYTES)
        guest.measure = measure(
            guest.keys.tik,
            api_major=API_MAJOR,
            api_minor=API_MINOR,
            build_id=BUILD_ID,
            policy=guest.policy,
            digest=guest.digest.digest(),
            mnonce=mnonce,
        )
        guest.state = GuestState.LSECRET
        return guest.measure + mnonce

    def launch_secret(self, handle: int, header: bytes, ciphertext: bytes, guest_length: int) -> bytes:
        """The plaintext of a secret, for the guest's memory."""
        guest = self._guest(handle)
        guest.require(GuestState.LSECRET)
        from sevlaunch.sevapi.secret import unwrap_secret

        return unwrap_secret(guest.keys, header, ciphertext, guest_length, guest.measure)

    def launch_finish(self, handle: int) -> None:
        """End the launch: the guest may run."""
        guest = self._guest(handle)
        guest.require(GuestState.LSECRET)
        guest.state = GuestState.RUNNING

    def guest_status(self, handle: int) -> tuple[int, GuestState]:
        """Policy and state."""
        guest = self._guest(handle)
        return guest.policy, guest.state

    def attestation_report(self, handle: int, mnonce: bytes) -> bytes:
        """A report of the launch digest, signed by the PEK; 208 bytes."""
        guest = self._guest(handle)
        guest.require(GuestState.LSECRET, GuestState.RUNNING)
        if len(mnonce) != MNONCE_BYTES:
            raise FirmwareError(Status.INVALID_LENGTH)
        from sevlaunch.sevapi.certificate import Algorithm, Usage

        signed = _REPORT_SIGNED.pack(mnonce, guest.digest.digest(), guest.policy)
        signature = ecdsa.sign(self._platform.pek, signed, "sha256")
        return signed + _REPORT_TAIL.pack(Usage.PEK, Algorithm.ECDSA_SHA256, 0, signature[: 2 * ecdsa.COORDINATE])

    def _guest(self, handle: int) -> GuestContext:
        if handle not in self._guests:
            raise FirmwareError(Status.INVALID_GUEST)
        return self._guests[handle]

    def _check_policy(self, policy: int) -> None:
        wanted = policy >> SEV_POLICY.major_shift & 0xFF, policy >> SEV_POLICY.minor_shift & 0xFF
        reserved = policy & ~SEV_POLICY.known or policy >> SEV_POLICY.width
        if reserved or wanted > (API_MAJOR, API_MINOR) or (policy & SEV_ES and not self._es_enabled):
            raise FirmwareError(Status.POLICY_FAILURE)

    def _check_sharing(self, policy: int, handle: int) -> None:
        other = self._guest(handle)
        if policy & SEV_NO_KEY_SHARING or other.policy != policy:
            raise FirmwareError(Status.POLICY_FAILURE)
