"""What a host claims about a launch, in evidence that nobody has verified: bounded, and checked field by field."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path

from sevlaunch.documents import decode
from sevlaunch.errors import EvidenceError, UsageError
from sevlaunch.evidence import MAX_BYTES, Evidence
from sevlaunch.files import read_bounded
from sevlaunch.remedies import QEMU_SINCE
from sevlaunch.sevapi.measurement import MEASURE_BYTES, MNONCE_BYTES
from sevlaunch.text import check_guest_name

# The property came with KVM_SEV_INIT2.
_SINCE_INIT2 = QEMU_SINCE["legacy-vm-type"]


class HostClaims(Evidence, frozen=True, kw_only=True):
    """The evidence of a launch as its owner sees it: claims of a host that nobody trusts."""

    def __post_init__(self) -> None:
        try:
            check_guest_name(self.name)
        except ValueError as error:
            raise ValueError(f"name: {error}") from error
        if self.sev.policy is not None and self.sev.policy >= 1 << 64:
            raise ValueError("sev.policy: wanted 64 bits")
        if self.measurement is not None:
            try:
                size = len(base64.b64decode(self.measurement, validate=True))
            except (binascii.Error, ValueError) as error:
                raise ValueError("measurement: wanted base64") from error
            if size != MEASURE_BYTES + MNONCE_BYTES:
                raise ValueError(f"measurement: wanted {MEASURE_BYTES + MNONCE_BYTES} bytes in base64, found {size}")

    @property
    def blob(self) -> bytes:
        """MEASURE and MNONCE, 48 bytes; empty where there is no measurement."""
        return base64.b64decode(self.measurement) if self.measurement else b""

    @property
    def measure(self) -> bytes:
        """MEASURE, 32 bytes."""
        return self.blob[:MEASURE_BYTES]

    @property
    def mnonce(self) -> bytes:
        """MNONCE, 16 bytes."""
        return self.blob[MEASURE_BYTES:]

    @property
    def has_session(self) -> bool:
        """Whether the command line gives the secure processor an owner's session."""
        return any("session-file=" in argument for argument in self.command)

    @property
    def init2(self) -> bool | None:
        """Whether KVM_SEV_INIT2 started the guest; None where the evidence does not decide it.

        That is where legacy-vm-type is not said, or ``auto``: it is for QEMU to tell whether another property needs
        KVM_SEV_INIT2, and for 11.1 none does (target/i386/sev.c, sev_init2_required).
        """
        if self.qemu and _release(self.qemu.version) < _SINCE_INIT2:
            return False
        parameters = {parameter for argument in self.command for parameter in argument.split(",")}
        if "legacy-vm-type=on" in parameters:
            return False
        return True if "legacy-vm-type=off" in parameters else None


def _release(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def read_claims(file: Path) -> HostClaims:
    """The claims of the evidence in a file; ``-`` is standard input.

    :raise EvidenceError: when it can't be read, or is no evidence.
    """
    try:
        content = read_bounded(file, "evidence", MAX_BYTES)
    except UsageError as error:
        raise EvidenceError(error.message, hint=error.hint) from error
    return parse_claims(content, str(file))


def parse_claims(content: bytes, where: str) -> HostClaims:
    """The claims of evidence in JSON.

    :param where: what it is called in an error.
    :raise EvidenceError: when it is none.
    """
    try:
        return decode(content, HostClaims)
    except ValueError as error:
        raise EvidenceError(
            f"{where} is no evidence of a launch: {error}",
            hint="ask the host for it again: sevlaunch evidence NAME > FILE",
        ) from error
