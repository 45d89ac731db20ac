"""The evidence of a launch, as it comes from a host that nobody trusts: bounded, and checked field by field."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from sevlaunch.documents import decode, matching
from sevlaunch.errors import EvidenceError, UsageError
from sevlaunch.files import read_bounded
from sevlaunch.guest_type import GuestType
from sevlaunch.sevapi.measurement import MEASURE_BYTES, MNONCE_BYTES

MAX_BYTES = 1 << 20

_Text = Annotated[str, Meta(max_length=4096)]
_Byte = Annotated[int, Meta(ge=0, le=255)]

# The QEMU that brought KVM_SEV_INIT2; machine types before it keep to the older way (hw/i386/pc.c, pc_compat_9_0).
_SINCE_INIT2 = (9, 1)


class _Facts(Struct, frozen=True, kw_only=True):
    pass


class Qemu(_Facts, frozen=True, kw_only=True):
    """The QEMU of the launch."""

    binary: _Text
    version: Annotated[str, matching(r"[0-9]{1,3}\.[0-9]{1,3}(\.[0-9]{1,4})?")]

    @property
    def release(self) -> tuple[int, int]:
        """Major and minor version."""
        major, minor = self.version.split(".")[:2]
        return int(major), int(minor)


class FirmwareFile(_Facts, frozen=True, kw_only=True):
    """The firmware that the host says it used."""

    path: _Text | None
    sha256: Annotated[str, matching(r"[0-9a-f]{64}")] | None


class Sev(_Facts, frozen=True, kw_only=True):
    """QEMU's answer to query-sev."""

    type: GuestType
    enabled: bool
    state: Annotated[str, Meta(max_length=64)] | None
    policy: Annotated[int, Meta(ge=0)] | None
    api_major: _Byte | None
    api_minor: _Byte | None
    build_id: _Byte | None

    def __post_init__(self) -> None:
        if self.policy is not None and self.policy >= 1 << 64:
            raise ValueError("policy: wanted 64 bits")


class Evidence(_Facts, frozen=True, kw_only=True):
    """The document of `sevlaunch evidence`. ``command``: QEMU's command line."""

    name: Annotated[str, Meta(max_length=256)]
    state: Annotated[str, Meta(max_length=64)]
    command: Annotated[list[Annotated[str, Meta(max_length=1 << 17)]], Meta(max_length=4096)]
    rehearsal: bool
    qemu: Qemu | None
    firmware: FirmwareFile | None
    vcpus: Annotated[int, Meta(ge=0, le=4096)] | None
    sev: Sev
    measurement: Annotated[str, Meta(max_length=64)] | None

    def __post_init__(self) -> None:
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
        """Whether KVM_SEV_INIT2 started the guest; None where the evidence does not decide it."""
        if self.qemu and self.qemu.release < _SINCE_INIT2:
            return False
        parameters = {parameter for argument in self.command for parameter in argument.split(",")}
        if "legacy-vm-type=on" in parameters or any(_is_older_machine(parameter) for parameter in parameters):
            return False
        return True if "legacy-vm-type=off" in parameters else None


def _is_older_machine(parameter: str) -> bool:
    name, _, version = parameter.rpartition("-")
    parts = version.split(".")
    if name != "pc-q35" or len(parts) < 2 or not all(part.isdigit() for part in parts):
        return False
    return (int(parts[0]), int(parts[1])) < _SINCE_INIT2


def read_evidence(file: Path) -> Evidence:
    """The evidence in a file; ``-`` is standard input.

    :raise EvidenceError: when it can't be read, or is no evidence.
    """
    try:
        content = read_bounded(file, "evidence", MAX_BYTES)
    except UsageError as error:
        raise EvidenceError(error.message, hint=error.hint) from error
    return parse_evidence(content, str(file))


def parse_evidence(content: bytes, where: str) -> Evidence:
    """The evidence in JSON.

    :param where: what it is called in an error.
    :raise EvidenceError: when it is none.
    """
    try:
        return decode(content, Evidence)
    except ValueError as error:
        raise EvidenceError(
            f"{where} is no evidence of a launch: {error}",
            hint="ask the host for it again: sevlaunch evidence NAME > FILE",
        ) from error
