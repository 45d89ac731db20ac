"""What an owner notes about a session, in files beside its keys: sealed with the TIK, so that no change goes unseen.

Who has the TIK can write such a file, too; who has it can forge the launch's measurement anyway.
"""

from __future__ import annotations

import hmac
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
from msgspec import Struct

from sevlaunch.documents import decode, matching
from sevlaunch.errors import InsecureUse, UsageError
from sevlaunch.files import read_bounded

MAX_BYTES = 1 << 12

# No message of AMD 55766 that a TIK authenticates begins like this: those of LAUNCH_MEASURE and LAUNCH_SECRET begin
# with 4 and 1, and a session's policy has four bytes.
_LABEL = b"sevlaunch: an owner's note\0"
_TIK_NAME = "tik.bin"
_STDIN = Path("-")

_Sealed = TypeVar("_Sealed", bound="Sealed")


class Sealed(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A note; ``mac`` is HMAC-SHA256 in hexadecimal, and empty before it is sealed."""

    mac: Annotated[str, matching(r"[0-9a-f]{64}|")] = ""

    def sealed(self: _Sealed, tik: bytes) -> _Sealed:
        """The same note with its seal.

        :param tik: the transport integrity key, 16 bytes.
        """
        unsealed = msgspec.structs.replace(self, mac="")
        return msgspec.structs.replace(self, mac=hmac.digest(tik, _LABEL + _encoded(unsealed), "sha256").hex())

    def to_bytes(self) -> bytes:
        """The file's content."""
        return msgspec.json.format(_encoded(self), indent=1) + b"\n"


def beside(tik: Path, name: str) -> Path:
    """Where the file ``name`` of the session with this TIK file is: vm_NAME for vm_tik.bin.

    :raise UsageError: when the TIK is standard input, which nothing lies beside.
    """
    if tik == _STDIN:
        option = f"--{name.partition('.')[0]}"
        raise UsageError(f"{name} lies beside the TIK, which is standard input here", hint=f"name it: {option} FILE")
    prefix = tik.name.removesuffix(_TIK_NAME) if tik.name.endswith(_TIK_NAME) else f"{tik.name}."
    return tik.with_name(f"{prefix}{name}")


def read_sealed(file: Path, kind: type[_Sealed], tik: bytes, *, what: str, missing: str) -> _Sealed:
    """The note in a file.

    :param tik: the transport integrity key of its session, 16 bytes.
    :param what: what it is called in an error.
    :param missing: the hint when it is not there.
    :raise InsecureUse: when it is not there, or was not written for this session as it stands.
    :raise UsageError: when it can't be read, or is none.
    """
    if not file.exists():
        raise InsecureUse(f"{what}: there is no {file}", hint=missing)
    content = read_bounded(file, what, MAX_BYTES)
    try:
        found = decode(content, kind)
    except ValueError as error:
        raise UsageError(f"{what}: {file} can't be read: {error}", hint="is it another file?") from error
    if not hmac.compare_digest(found.mac, found.sealed(tik).mac):
        raise InsecureUse(f"{what}: {file} was changed, or belongs to another session", hint=missing)
    return found


def _encoded(note: Sealed) -> bytes:
    return msgspec.json.encode(note)
