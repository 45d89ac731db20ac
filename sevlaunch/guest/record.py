"""What a launcher writes down about its guest, for the commands that come later."""

from __future__ import annotations

import json
from typing import Annotated

import msgspec
from msgspec import Meta, Struct, field

from sevlaunch.guest_type import GuestType
from sevlaunch.origin import Origin
from sevlaunch.ports import ForwardInfo, SshAddress

# Linux' PID_MAX_LIMIT on 64 bits.
_Pid = Annotated[int, Meta(ge=1, le=1 << 22)]
_Number = Annotated[int, Meta(ge=0)]


class FileIdentity(Struct, frozen=True, array_like=True):
    """Which file it is, whatever its name is by now."""

    device: _Number
    inode: _Number


class CompanionProcess(Struct, frozen=True, array_like=True):
    """A process beside QEMU; ``start_time`` as in :class:`Record`."""

    pid: _Pid
    start_time: _Number
    name: str


class Login(Struct, frozen=True, array_like=True):
    """Who may log in to a guest by SSH: ``user``, or the one that its image has; ``key``: the private key's file.

    ``alone``: that key and no other. A disk that is kept may have had its first boot when the user's own keys were
    there, and not the guest's.
    """

    user: str | None
    key: str | None
    alone: bool = False


class Started(Struct, frozen=True, array_like=True):
    """How a guest was started: ``paused`` before its first instruction, ``verified`` before it ran, by a command that
    stays with it (``foreground``), within ``limit`` seconds (None: the usual ones).
    """

    paused: bool = False
    verified: bool = False
    foreground: bool = False
    limit: float | None = None


class Record(Struct, frozen=True):
    """What a command needs to know about a guest that another command started.

    ``start_time`` is field 22 of /proc/PID/stat, clock ticks since boot: with it a reused PID is told apart. ``lock``
    is the file that QEMU holds for as long as it lives. ``companions`` are the processes beside QEMU.
    ``origin``: its profile's file; None: it has none. ``started``: None for one that is not launched yet, or that a
    program started in its own way.
    ``login``: who may log in, as its seed says; None: it has none, or one that says something else.
    ``ssh`` and ``forwards`` have the ports that QEMU has bound, and are written once it tells them. ``state_folder``:
    what outlives the guest.
    """

    name: str
    pid: _Pid
    start_time: _Number
    lock: FileIdentity
    launched: bool
    profile: str
    command: list[str]
    guest_type: GuestType
    vcpus: int
    binary: str
    qemu_version: str
    firmware: str
    reboot: str
    console_log: str | None
    vsock_cid: int | None
    rehearsal: bool = False
    companions: list[CompanionProcess] = field(default_factory=list)
    login: Login | None = None
    ssh: SshAddress | None = None
    forwards: list[ForwardInfo] = field(default_factory=list)
    state_folder: str = ""
    origin: Origin | None = None
    started: Started | None = None

    def to_json(self) -> bytes:
        """The record as a document."""
        return json.dumps(msgspec.to_builtins(self), indent=1).encode()


def parse_record(content: bytes) -> Record:
    """The record in a document.

    :raise ValueError: when it is damaged.
    """
    try:
        # Not msgspec's own reader of JSON: names of files need not be UTF-8, and Python passes them on as surrogates.
        return msgspec.convert(json.loads(content), Record)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
