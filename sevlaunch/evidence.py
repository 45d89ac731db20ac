"""The document of `up`, `status` and `evidence`: what a launch showed.

The host's side fills it in; on the owner's side it is a claim of the host (:mod:`sevlaunch.owner.claims`). The limits
of its fields are looked at where it is read, not where it is made.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct, field

from sevlaunch.documents import matching
from sevlaunch.guest_type import GuestType
from sevlaunch.ports import ForwardInfo, SshAddress

MAX_BYTES = 1 << 20

_Text = Annotated[str, Meta(max_length=4096)]
_Word = Annotated[str, matching(r"[a-z0-9-]{0,64}")]
_Byte = Annotated[int, Meta(ge=0, le=255)]
_Unsigned = Annotated[int, Meta(ge=0, lt=1 << 32)]

_WANTED_ENDS = ("powered-off", "rebooted", "quit", "terminated", "taken-down")


class QemuInfo(Struct, frozen=True):
    """The QEMU of the launch."""

    binary: _Text
    version: Annotated[str, matching(r"[0-9]{1,3}\.[0-9]{1,3}(\.[0-9]{1,4})?")]


class FirmwareInfo(Struct, frozen=True):
    """The firmware that the host says it used; ``sha256`` in hexadecimal."""

    path: _Text | None
    sha256: Annotated[str, matching(r"[0-9a-f]{64}")] | None


class SevInfo(Struct, frozen=True):
    """The answer of ``query-sev`` (QEMU's qapi/misc-target.json) and the type from the plan.

    QEMU before 9.1 does not tell the type; for SNP, ``policy`` is its snp-policy and there is no handle.
    """

    type: GuestType
    enabled: bool
    state: _Word | None
    policy: Annotated[int, Meta(ge=0)] | None
    api_major: _Byte | None
    api_minor: _Byte | None
    build_id: _Byte | None
    handle: _Unsigned | None = None


class Ended(Struct, frozen=True):
    """How a guest ended, as far as it is known.

    :param how: powered-off, rebooted, quit, terminated (SIGTERM to QEMU) or taken-down: somebody wanted it; crashed
        (the guest), killed (QEMU, by a signal), failed (QEMU's exit code): nobody did; exited: nobody saw why.
    :param exit_code: QEMU's; negative: the signal that killed it.
    :param reason: QEMU's word for it: the cause of its shutdown, the state that it was left in, or what it said last.
    """

    how: _Word
    exit_code: Annotated[int, Meta(ge=-128, le=255)] | None
    reason: _Text | None

    @property
    def wanted(self) -> bool:
        """Whether somebody wanted it: the guest, or whoever took it down."""
        return self.how in _WANTED_ENDS or (self.how, self.exit_code) == ("exited", 0)


class HelperInfo(Struct, frozen=True):
    """A helper program beside QEMU.

    :param state: running, or ended, although the guest needs it.
    :param reason: what it said last, where it has ended.
    """

    name: str
    state: str
    reason: str | None


class Evidence(Struct, frozen=True, kw_only=True):
    """The document.

    ``measurement`` is base64 of MEASURE (32 bytes) and MNONCE (16), AMD 55766 LAUNCH_MEASURE. ``report`` is base64 of
    an SNP guest's attestation report (1184 bytes) and ``certificates`` of VCEK, ASK and ARK (DER), where the host has
    them: in a rehearsal that was resumed. A real guest fetches its report itself.
    """

    name: Annotated[str, Meta(max_length=256)]
    state: _Word
    pid: Annotated[int, Meta(ge=1, lt=1 << 32)] | None = None
    profile: _Text | None = None
    command: Annotated[list[Annotated[str, Meta(max_length=1 << 17)]], Meta(max_length=4096)]
    rehearsal: bool
    qemu: QemuInfo | None
    firmware: FirmwareInfo | None
    vcpus: Annotated[int, Meta(ge=0, le=4096)] | None
    sev: SevInfo
    measurement: Annotated[str, Meta(max_length=64)] | None
    ssh: SshAddress | None = None
    ended: Ended | None = None
    report: Annotated[str, Meta(max_length=4096)] | None = None
    certificates: Annotated[list[Annotated[str, Meta(max_length=1 << 15)]], Meta(max_length=16)] = field(
        default_factory=list
    )
    forwards: Annotated[list[ForwardInfo], Meta(max_length=4096)] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The document as plain data; ``report``, ``certificates`` and ``forwards`` are in it where there are some."""
        document: dict[str, Any] = msgspec.to_builtins(self)
        if self.report is None:
            del document["report"], document["certificates"]
        if not self.forwards:
            del document["forwards"]
        return document


class Status(Evidence, frozen=True, kw_only=True):
    """The same fields with the state of now.

    ``state`` is QEMU's run state, or: starting, abandoned (its launcher was killed), busy (other commands talk to QEMU
    all the time), unresponsive (QEMU is stuck), degraded (it runs, but one of its ``helpers`` has ended), exited (QEMU
    has ended; ``ended`` says what is known of that).
    """

    helpers: list[HelperInfo] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The document as plain data; ``helpers`` are in it where there are some."""
        document = super().to_dict()
        if not self.helpers:
            del document["helpers"]
        return document
