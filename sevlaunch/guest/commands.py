"""A guest that another command started: look at it, ask it, let it run."""

from __future__ import annotations

import base64
import contextlib
from pathlib import Path
from shlex import quote
from typing import Any

import msgspec
from msgspec.structs import asdict, replace

from sevlaunch.errors import (
    GuestBusy,
    GuestEnded,
    GuestNotFound,
    GuestTimeout,
    QmpError,
    SevlaunchError,
    UnsafeFile,
    UnsupportedError,
)
from sevlaunch.evidence import Ended, FirmwareInfo, QemuInfo, Status
from sevlaunch.guest.diagnosis import hint_for
from sevlaunch.guest.evidence import read_evidence, read_sev_info, sev_info, shown_state
from sevlaunch.guest.folder import GuestFolder, find
from sevlaunch.guest.helpers import helpers_of
from sevlaunch.guest.life import is_alive, is_locked, is_starting, launch_never_finished, qemu_pid
from sevlaunch.guest.monitor import COMMANDS_TURN_LIMIT, commands_monitor
from sevlaunch.guest.outcome import last_words
from sevlaunch.guest.process import DEATH_LIMIT, Process
from sevlaunch.guest.record import Record
from sevlaunch.guest_type import GuestType

STATUS_LIMIT = 5.0


async def status(folder: GuestFolder, *, turn_limit: float = COMMANDS_TURN_LIMIT) -> Status:
    """The guest's state of now, and what its launch showed.

    :param turn_limit: seconds that other commands may keep its monitor.
    """
    record, state = _look(folder)
    shown = _last_seen(folder, record)
    pid = qemu_pid(folder)
    process = Process.attach(pid) if pid and state is None else None
    if process is not None:
        try:
            helpers = helpers_of(folder, record)
            return await _ask(folder, replace(shown, pid=pid, helpers=helpers), process, turn_limit)
        finally:
            process.close()
    if state in (None, "exited"):
        return replace(shown, ended=_ended(folder))
    return replace(shown, state=state, pid=pid)


async def _ask(folder: GuestFolder, shown: Status, process: Process, turn_limit: float) -> Status:
    try:
        async with commands_monitor(folder, turn_limit=turn_limit, limit=STATUS_LIMIT) as qmp:
            state = shown_state(await qmp.execute("query-status", limit=STATUS_LIMIT))
            if state == "running" and any(helper.state == "ended" for helper in shown.helpers):
                state = "degraded"
            return replace(shown, state=state, sev=await sev_info(qmp, shown.sev.type))
    except GuestBusy:
        return replace(shown, state="busy")
    except (GuestTimeout, UnsafeFile):
        # UnsafeFile: what is in the place of its socket is not QEMU's.
        ended = process.ended
    except QmpError as error:
        # QEMU hangs up before it ends.
        ended = await process.ends_within(0.0 if error.error_class else DEATH_LIMIT)
    except GuestNotFound:
        # Its folder goes when it has ended.
        ended = await process.ends_within(DEATH_LIMIT)
    if not ended:
        return replace(shown, state="unresponsive")
    return replace(shown, state="exited", pid=None, helpers=[], ended=_ended(folder))


def _look(folder: GuestFolder) -> tuple[Record | None, str | None]:
    """The record, and the state as far as the folder tells it; None: it is for QEMU to say."""
    while True:
        starting, record = is_starting(folder), folder.record()
        begun, pid, locked = launch_never_finished(folder), qemu_pid(folder), is_locked(folder)
        # A start that ended, or one that began, while this looked: look again.
        if (starting, record) == (is_starting(folder), folder.record()):
            break
    if pid and not (begun and locked):
        return record, None
    return record, "starting" if starting else "abandoned" if locked else "exited"


def _last_seen(folder: GuestFolder, record: Record | None) -> Status:
    """What is known without asking QEMU, as if it had ended."""
    evidence = read_evidence(folder)
    if evidence is not None:
        return Status(**{**asdict(evidence), "name": folder.name, "state": "exited", "pid": None})
    # A launch that never got that far.
    return Status(
        name=folder.name,
        state="exited",
        profile=record.profile if record else None,
        command=record.command if record else [],
        rehearsal=bool(record and record.rehearsal),
        qemu=QemuInfo(record.binary, record.qemu_version) if record else None,
        firmware=FirmwareInfo(record.firmware, None) if record else None,
        vcpus=record.vcpus if record else None,
        sev=read_sev_info(record.guest_type if record else GuestType.NONE, None),
        measurement=None,
    )


def _ended(folder: GuestFolder) -> Ended:
    # A file that is damaged says nothing.
    with contextlib.suppress(msgspec.ValidationError):
        return msgspec.convert(folder.ended(), Ended)
    # Nobody waits for a QEMU that outlives its launcher: what it said last is all there is.
    return Ended(how="exited", exit_code=None, reason=last_words(folder))


async def execute(root: Path, name: str, command: str, arguments: dict[str, Any] | None = None) -> Any:
    """What the guest's QEMU returns for a QMP command.

    :raise GuestNotFound: when there is none; GuestEnded when it does not run any more.
    :raise QmpError: when QEMU refuses the command, or ends; the error has the end of its output.
    """
    folder = _running(root, name)
    pid = qemu_pid(folder)
    process = Process.attach(pid) if pid else None
    try:
        async with commands_monitor(folder) as qmp:
            return await qmp.execute(command, arguments)
    except QmpError as error:
        # QEMU ends by itself when the secure processor refuses to finish a launch.
        if not error.error_class and process and await process.ends_within(DEATH_LIMIT):
            error.stderr = tuple(folder.log_tail())
            error.hint = error.hint or hint_for(error.stderr)
        raise
    finally:
        if process:
            process.close()


async def resume(root: Path, name: str) -> Status:
    """Let a paused guest run; its status afterwards."""
    await execute(root, name, "cont")
    return await status(find(root, name))


async def pause(root: Path, name: str) -> Status:
    """Stop a guest's vCPUs; its status afterwards."""
    await execute(root, name, "stop")
    return await status(find(root, name))


async def inject(root: Path, name: str, header: bytes, payload: bytes) -> Status:
    """Put the owner's secrets into a guest that waits in its launch; its status afterwards.

    :param header: packet header, 52 bytes (AMD 55766, LAUNCH_SECRET).
    :param payload: the encrypted table of secrets.
    :raise UnsupportedError: when it is no SEV or SEV-ES guest.
    :raise SevlaunchError: when its launch is over.
    :raise QmpError: when QEMU or the secure processor refuses them.
    """
    before = await status(_running(root, name))
    sev = before.sev
    if sev.type is GuestType.SEV_SNP:
        raise UnsupportedError(
            f"{name} is a SEV-SNP guest, which takes no secret at its launch",
            hint="give it one over the network, once its owner has checked its report: sevlaunch owner report",
        )
    if not sev.enabled:
        raise UnsupportedError(f"{name} is no encrypted guest: a secret would not be one")
    if sev.state != "launch-secret":
        raise SevlaunchError(
            f"the launch of {name} is over (SEV state {sev.state}): a secret goes in before the guest runs",
            hint=f"start it anew: sevlaunch down {quote(name)}, then sevlaunch up PROFILE --paused",
        )
    packet = {"packet-header": base64.b64encode(header).decode(), "secret": base64.b64encode(payload).decode()}
    await execute(root, name, "sev-inject-launch-secret", packet)
    return await status(find(root, name))


def _running(root: Path, name: str) -> GuestFolder:
    folder = find(root, name)
    if not is_alive(folder):
        raise GuestEnded(f"the guest {name!r} does not run any more", hint=f"its output: sevlaunch logs {quote(name)}")
    return folder
