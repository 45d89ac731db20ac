"""What QEMU says of a launch, gathered into the evidence, and the evidence that a launch has written."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from sevlaunch.errors import UNEXPECTED_ANSWER, QemuError, QmpError
from sevlaunch.evidence import Evidence, FirmwareInfo, QemuInfo, SevInfo
from sevlaunch.guest.folder import GuestFolder
from sevlaunch.guest.monitor import Qmp
from sevlaunch.guest.record import Record
from sevlaunch.guest_type import GuestType
from sevlaunch.opening import open_regular
from sevlaunch.qcow2 import MAGIC, MAX_FLASH_BYTES, Qcow2


class RunState(Struct, frozen=True):
    """The answer of ``query-status`` (QEMU's qapi/run-state.json), without what older QEMUs say beside."""

    status: str
    running: bool


# QMP's RunState -> the state that sevlaunch shows, where they differ.
_STATES = {"prelaunch": "paused"}


def shown_state(status: Any) -> str:
    """The state in an answer of ``query-status``, for people: ``paused`` before the first instruction, too.

    :raise QmpError: when it is no such answer.
    """
    with _expected_shape("query-status", status):
        state = msgspec.convert(status, RunState).status
    return _STATES.get(state, state)


def is_running(status: Any) -> bool:
    """Whether the guest executes, by an answer of ``query-status``.

    :raise QmpError: when it is no such answer.
    """
    with _expected_shape("query-status", status):
        return msgspec.convert(status, RunState).running


async def gather(qmp: Qmp, record: Record, *, firmware_sha256: str | None) -> Evidence:
    """The evidence of the guest behind ``qmp``.

    :raise QmpError: when QEMU does not answer as it should.
    """
    status = await qmp.execute("query-status")
    sev = await sev_info(qmp, record.guest_type)
    return Evidence(
        name=record.name,
        state=shown_state(status),
        pid=record.pid,
        profile=record.profile,
        command=record.command,
        rehearsal=record.rehearsal,
        qemu=QemuInfo(record.binary, record.qemu_version),
        firmware=FirmwareInfo(record.firmware, firmware_sha256),
        vcpus=record.vcpus,
        sev=sev,
        measurement=await launch_measurement(qmp) if sev.enabled and record.guest_type.measured_by_host else None,
        ssh=record.ssh,
        forwards=record.forwards,
    )


async def sev_info(qmp: Qmp, guest_type: GuestType) -> SevInfo:
    """What QEMU says of SEV in this guest."""
    try:
        answer = await qmp.execute("query-sev")
    except QmpError as error:
        # A QEMU built without SEV does not know the command.
        if error.error_class == "CommandNotFound":
            answer = None
        else:
            raise
    with _expected_shape("query-sev", answer):
        return read_sev_info(guest_type, answer)


def read_sev_info(guest_type: GuestType, answer: dict[str, Any] | None) -> SevInfo:
    """The info in QEMU's answer to ``query-sev``; None stands for a QEMU without SEV.

    :raise AttributeError, KeyError, ValueError: when it is no such answer.
    """
    if not answer or not answer.get("enabled"):
        return SevInfo(guest_type, False, None, None, None, None, None, None)
    found = {
        "type": guest_type,
        "enabled": answer["enabled"],
        "state": answer["state"],
        "policy": answer.get("snp-policy", answer.get("policy")),
        "api_major": answer["api-major"],
        "api_minor": answer["api-minor"],
        "build_id": answer["build-id"],
        "handle": answer.get("handle"),
    }
    return msgspec.convert(found, SevInfo)


async def launch_measurement(qmp: Qmp) -> str | None:
    """The launch measurement in base64; None in a state that has none."""
    try:
        answer = await qmp.execute("query-sev-launch-measure")
    except QmpError as error:
        if error.error_class == "GenericError":
            return None
        raise
    with _expected_shape("query-sev-launch-measure", answer):
        return msgspec.convert(answer["data"], str)


@contextmanager
def _expected_shape(command: str, answer: Any) -> Iterator[None]:
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise QmpError(
            f"QEMU's answer to {command} is none that it should give: {str(answer)[:200]}",
            error_class=UNEXPECTED_ANSWER,
        ) from error


def read_evidence(folder: GuestFolder) -> Evidence | None:
    """The evidence that the launch wrote, with report and certificates where there are some by now; None if none."""
    document = folder.evidence()
    if document is None:
        return None
    try:
        return msgspec.convert(document, Evidence)
    except msgspec.ValidationError:
        # Damaged, or something else: as good as none.
        return None


def check_encryption(evidence: Evidence, expected_policy: int | None) -> None:
    """Make sure that a guest which is to be encrypted is.

    :param expected_policy: the policy of the plan; None for an ordinary guest.
    :raise QemuError: when QEMU runs it unencrypted, or with another policy.
    """
    if expected_policy is None:
        return
    if not evidence.sev.enabled:
        raise QemuError(
            f"{evidence.name} was to be a {evidence.sev.type} guest, and QEMU says that SEV is not enabled",
            hint="this QEMU does not do what its command line says: do not use it",
        )
    if evidence.sev.policy != expected_policy:
        reported = "none" if evidence.sev.policy is None else f"{evidence.sev.policy:#x}"
        raise QemuError(
            f"{evidence.name} was to have policy {expected_policy:#x}, and QEMU reports {reported}",
            hint="this QEMU does not do what its command line says: do not use it",
        )


def sha256_of(path: str) -> str | None:
    """SHA-256 of firmware, as it is measured, in hexadecimal; None when it can't be read any more.

    A file that is as it was is read once.
    """
    try:
        status = Path(path).stat()
        return _sha256(path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    except (OSError, ValueError):
        return None


@lru_cache(maxsize=16)
def _sha256(path: str, *_state: int) -> str:
    digest = hashlib.sha256()
    with open_regular(path) as stream:
        if stream.read(len(MAGIC)) == MAGIC:
            return hashlib.sha256(Qcow2(stream).whole(MAX_FLASH_BYTES)).hexdigest()
        stream.seek(0)
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
