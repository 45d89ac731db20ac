"""What `owner verify` and `owner secret` have in common: a session's keys, and what was noted beside them."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from shlex import join
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from sevlaunch.cli.output import say

if TYPE_CHECKING:
    from sevlaunch.owner.claims import HostClaims
    from sevlaunch.owner.secret import Packet, Secret

TikOption = Annotated[Path, typer.Option("--tik", metavar="FILE", help="Transport integrity key of the session.")]
RehearsalOption = Annotated[bool, typer.Option("--rehearsal", help="Take evidence of a rehearsal: it proves nothing.")]
PlatformOption = Annotated[
    Path | None,
    typer.Option("--platform", metavar="FILE", help="Who vouched for the platform; PREFIX_platform.json by default."),
]
RootOption = Annotated[
    Path | None, typer.Option("--root", metavar="FILE", help="The only ARK to trust, instead of AMD's.")
]
VerdictOption = Annotated[
    Path | None, typer.Option("--verdict", metavar="FILE", help="The answer of verify; PREFIX_verdict.json by default.")
]
HeaderOption = Annotated[
    Path | None,
    typer.Option("--header", metavar="FILE", help="The packet's header, to be written; PREFIX_header.b64 by default."),
]
PayloadOption = Annotated[
    Path | None,
    typer.Option("--payload", metavar="FILE", help="Its payload, to be written; PREFIX_payload.b64 by default."),
]


def vouched_for(
    claims: HostClaims, tik: Path, integrity: bytes, *, platform: Path | None, root: Path | None, rehearsal: bool
) -> str:
    """Who vouched for the platform of the session.

    :param tik: the file with the TIK, ``integrity``.
    :raise InsecureUse: when it is nobody whom the owner trusts.
    """
    from sevlaunch.owner import platform as notes
    from sevlaunch.owner.sealed import beside

    trusted = notes.read_root_fingerprint(root) if root else None
    note = notes.read_platform_note(platform or beside(tik, notes.FILE_NAME), integrity)
    return notes.require_vouched(note, claims, trusted=trusted, rehearsal=rehearsal)


class WrittenPacket(NamedTuple):
    """A packet in two files; the fields are those of the commands' JSON. ``secrets`` has the GUIDs."""

    secrets: tuple[str, ...]
    header: str
    payload: str
    payload_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain data."""
        return self._asdict()

    def show(self, claims: HostClaims) -> None:
        """Say what was wrapped, and what the host does with it."""
        number = len(self.secrets)
        say(f"{number} secret{'s' if number > 1 else ''} for {claims.name}: {self.header}, {self.payload}")
        words = ("sevlaunch", "inject", claims.name, "--header", self.header, "--payload", self.payload)
        say(f"on the host: {join(words)}")


def write_packet(
    packet: Packet, secrets: Sequence[Secret], tik: Path, header: Path | None, payload: Path | None
) -> WrittenPacket:
    """Write the packet of these secrets into two new files.

    :param tik: the file with the TIK, beside which the files are by default.
    :raise UsageError: when one is there already, or can't be written.
    """
    from sevlaunch.files import NewFile, write_new
    from sevlaunch.owner.sealed import beside

    header, payload = header or beside(tik, "header.b64"), payload or beside(tik, "payload.b64")
    files = ((header, packet.header), (payload, packet.payload))
    write_new([NewFile(file, base64.b64encode(content), secret=True) for file, content in files])
    return WrittenPacket(tuple(str(one.guid) for one in secrets), str(header), str(payload), len(packet.payload))
