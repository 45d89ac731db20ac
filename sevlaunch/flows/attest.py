"""Asking a guest for its SNP attestation report, over SSH or through its agent, and what that has to say.

Who attests on the host that runs the guest tests it. For an owner who does not trust that host, nonce and answer are
worth something on his own machine alone: see :mod:`sevlaunch.owner.request`.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from msgspec import Struct

from sevlaunch.errors import EvidenceError, GuestTimeout, Problem, UnsupportedError, UsageError
from sevlaunch.flows.inside import run_in_guest, way_into
from sevlaunch.guest.agent import Agent
from sevlaunch.guest.agent_programs import ProgramEnd
from sevlaunch.guest.folder import REPORT, REPORT_SOCKET, GuestFolder, find
from sevlaunch.guest.life import qemu_pid
from sevlaunch.guest.record import Record
from sevlaunch.guest.ssh import FAILED, run_over_ssh
from sevlaunch.guest_type import GuestType
from sevlaunch.host.folders import runtime_folder
from sevlaunch.owner.collected import ReportFile
from sevlaunch.owner.expected_report import Expected, expected_of_setup
from sevlaunch.owner.report_file import parse_report
from sevlaunch.owner.request import NO_WAY, new_nonce, request_script
from sevlaunch.owner.setup import Options, resolve_setup
from sevlaunch.profile.loader import load

By = Literal["ssh", "agent"]

LIMIT = 60.0
# Report and certificates; a host may have some more of those than it takes.
_LONGEST_ANSWER = 1 << 20
# Through SSH the user need not be root; sudo asks nobody.
_AS_ROOT = 'if [ "$(id -u)" = 0 ]; then exec /bin/sh -s; else exec sudo -n /bin/sh -s; fi'
_SHOWN_LINES = 5


class FetchedReport(Struct, frozen=True):
    """What a guest answered: ``report`` with the certificates that came along, over ``nonce`` (64 bytes).

    ``by``: ssh, agent, or rehearsal, where the emulated processor was asked. ``file``: where the answer is kept.
    """

    report: ReportFile
    nonce: bytes
    by: str
    file: Path


async def fetch_report(
    name: str,
    *,
    by: By | None = None,
    nonce: bytes | None = None,
    root: Path | None = None,
    user: str | None = None,
    key: Path | None = None,
    limit: float = LIMIT,
) -> FetchedReport:
    """Ask the guest for an attestation report; nothing of it is checked.

    The guest needs Linux 6.7 (configfs-tsm), or /dev/sev-guest and snpguest. In a rehearsal, whose guest has neither,
    the emulated processor is asked.

    :param by: None: by SSH where the guest has a port for it, else through the agent.
    :param nonce: 64 bytes for the report's data; None: new ones.
    :param root: the folder of all guests; default: the user's runtime folder.
    :param user: for SSH, another one than the guest's first boot has made; root, or one who may use sudo.
    :param key: for SSH, the file of another private key.
    :param limit: seconds.
    :raise GuestNotFound: when there is no such guest; GuestEnded when it does not run any more.
    :raise UsageError: when there is no way into the guest.
    :raise UnsupportedError: when the guest has no report; with what it says.
    :raise EvidenceError: when its answer is no report.
    :raise GuestTimeout: when it does not answer within ``limit``.
    """
    folder = find(root or runtime_folder(), name)
    nonce = nonce or new_nonce()
    record = folder.record()
    if record is not None and record.rehearsal and record.guest_type is GuestType.SEV_SNP and qemu_pid(folder):
        chosen, content = "rehearsal", await asyncio.to_thread(_rehearsed, folder, nonce, limit)
    else:
        chosen = by or _usual(folder, record)
        content = await _asked(folder, chosen, nonce, user, key, limit)
    report = parse_report(content, f"the answer of {name}", rehearsal=record is not None and record.rehearsal)
    folder.write(REPORT, content)
    return FetchedReport(report, nonce, chosen, folder.file(REPORT))


def expected_of_guest(name: str, *, root: Path | None = None) -> Expected:
    """The launch that the guest's report has to be of, by its profile as that is now, on the firmware that it has.

    :raise GuestNotFound: when there is no such guest.
    :raise UsageError: when it was started without a profile in a file, or is no SNP guest.
    """
    folder = find(root or runtime_folder(), name)
    record = folder.record()
    if record is None or record.origin is None:
        raise UsageError(
            f"{name} was started without a profile in a file, which would say what its digest has to be",
            hint="say it: --profile FILE, --lock FILE, or --digest HEX and --policy",
        )
    if record.guest_type is not GuestType.SEV_SNP:
        raise UsageError(
            f"{name} is no SEV-SNP guest but {record.guest_type}: its profile does not say what a report has to be",
            hint="say it: --profile FILE, --lock FILE, or --digest HEX and --policy",
        )
    origin = record.origin
    loaded = load(Path(origin.file), overrides=origin.overrides, name=name, folder=Path(origin.folder))
    return expected_of_setup(resolve_setup(loaded, Options(firmware=Path(record.firmware))), loaded.profile)


def _usual(folder: GuestFolder, record: Record | None) -> By:
    if record is not None and (record.ssh is not None or record.vsock_cid is not None):
        return "ssh"
    if Agent(folder).there:
        return "agent"
    raise UsageError(
        f"there is no way into {folder.name} to ask for a report",
        hint="set networks: [{type: user, ssh: auto}], vsock: auto or guest_agent: true in its profile",
    )


def _rehearsed(folder: GuestFolder, nonce: bytes, limit: float) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(limit)
        try:
            folder.connect_own(connection, REPORT_SOCKET)
            connection.send(nonce)
            return connection.recv(_LONGEST_ANSWER)
        except TimeoutError as error:
            raise GuestTimeout(f"the emulated processor of {folder.name} did not answer within {limit:g} s") from error
        except OSError as error:
            raise UnsupportedError(
                f"{folder.name} has no report before its launch is finished", hint=f"sevlaunch resume {folder.name}"
            ) from error


async def _asked(folder: GuestFolder, by: str, nonce: bytes, user: str | None, key: Path | None, limit: float) -> bytes:
    script = request_script(nonce).encode()
    try:
        async with asyncio.timeout(limit):
            if by == "ssh":
                way = way_into(folder.name, root=folder.root, user=user, key=key)
                end = await run_over_ssh(way, [_AS_ROOT], given=script)
            else:
                end = await run_in_guest(folder.name, ["/bin/sh", "-s"], root=folder.root, given=script)
    except TimeoutError as error:
        raise GuestTimeout(
            f"{folder.name} gave no report within {limit:g} s",
            hint=f"is it up? `sevlaunch wait {folder.name} {'ssh' if by == 'ssh' else 'qga'}` waits for it",
        ) from error
    if end.exit_code:
        raise _refused(folder.name, by, end)
    if end.exit_code is None or end.truncated or len(end.stdout) > _LONGEST_ANSWER:
        raise EvidenceError(f"the answer of {folder.name} is no report", hint="is another program called sh there?")
    return end.stdout


def _refused(name: str, by: str, end: ProgramEnd) -> UnsupportedError:
    told = end.stderr.decode(errors="backslashreplace").strip().splitlines()
    if by == "ssh" and end.exit_code == FAILED:
        message, hint = f"there is no way into {name} by SSH", f"try it: sevlaunch ssh {name}"
    elif end.exit_code == NO_WAY:
        message, hint = f"{name} has no attestation report", "it takes an SEV-SNP guest with Linux 6.7 or newer"
    else:
        message, hint = f"{name} could not ask for an attestation report", "the user has to be root, or may use sudo"
    return UnsupportedError(message, problems=_problems(told), hint=hint)


def _problems(lines: Sequence[str]) -> list[Problem]:
    return [Problem(line) for line in lines[-_SHOWN_LINES:]]
