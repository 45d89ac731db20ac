"""Who vouches for the platform of a session: noted when the session is made, and asked before its launch is believed.

A measurement proves something only on a secure processor that AMD made: whoever made the key of the PDH (an emulated
processor, too) can compute the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from sevlaunch.documents import matching
from sevlaunch.errors import InsecureUse, UsageError
from sevlaunch.owner.chain import read_root
from sevlaunch.owner.claims import HostClaims
from sevlaunch.owner.roots import AMD_ROOTS, fingerprint
from sevlaunch.owner.sealed import Sealed, read_sealed

FILE_NAME = "platform.json"

_MAKE_ONE = (
    "make the session with `sevlaunch owner session --pdh FILE --chain FILE --ca FILE`, where --ca has AMD's keys"
)


class PlatformNote(Sealed, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``root``: the fingerprint of the ARK up to which every certificate verified; None: nobody vouched for the PDH."""

    platform: Annotated[Literal[1], Meta(description="version of this format")] = 1
    root: Annotated[str, matching(r"[0-9a-f]{64}")] | None

    @property
    def is_amds(self) -> bool:
        """Whether AMD vouched for the platform."""
        return self.root in AMD_ROOTS

    def __str__(self) -> str:
        if self.root is None:
            return "nobody"
        generation = AMD_ROOTS.get(self.root)
        return f"AMD's root key for {generation}" if generation else f"REHEARSAL or unknown root: {self.root}"


def read_platform_note(file: Path, tik: bytes) -> PlatformNote:
    """The note in a file, of the session with this TIK (16 bytes).

    :raise InsecureUse: when it is not there, or is none of this session's.
    :raise UsageError: when it can't be read.
    """
    return read_sealed(file, PlatformNote, tik, what="who vouched for the platform", missing=_MAKE_ONE)


def read_root_fingerprint(file: Path) -> str:
    """The fingerprint of the ARK in a file in the SEV format.

    :raise UsageError: when there is none.
    """
    try:
        return fingerprint(read_root(file).public_key)
    except ValueError as error:
        raise UsageError(f"root: the ARK's key in {file} is none: {error}", hint="give another file") from error


def require_vouched(note: PlatformNote, claims: HostClaims, *, trusted: str | None, rehearsal: bool) -> str:
    """Make sure that somebody whom the owner trusts vouched for the platform; who that is.

    :param trusted: the fingerprint of the only root to trust, instead of AMD's.
    :param rehearsal: evidence that says that it is of a rehearsal may be of any platform.
    :raise InsecureUse: when nobody did.
    """
    if trusted is not None:
        if note.root == trusted:
            return f"the root that was given: {trusted}"
        raise InsecureUse(f"the platform of this session was vouched for by {note}, not by the root given, {trusted}")
    if note.is_amds:
        return str(note)
    if rehearsal and claims.rehearsal:
        return f"REHEARSAL, which proves nothing: {note}"
    raise InsecureUse(
        f"the platform of this session was vouched for by {note}, not by AMD: {claims.name} may run on an emulated "
        "processor, whatever its evidence says",
        hint=_MAKE_ONE if note.root is None else "to trust another root than AMD's, name it: --root FILE",
    )
