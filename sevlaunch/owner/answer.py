"""The answer of `verify` in a file: without it, `secret` wraps for no launch."""

from __future__ import annotations

import base64
import hmac
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from sevlaunch.atomic import write_whole
from sevlaunch.errors import HostError, InsecureUse, UsageError
from sevlaunch.owner.claims import HostClaims
from sevlaunch.owner.sealed import Sealed, read_sealed

FILE_NAME = "verdict.json"

_VERIFY_FIRST = "verify the launch first: sevlaunch owner verify EVIDENCE; to do without: --unverified"


class Answer(Sealed, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``measurement``: MEASURE and MNONCE of the launch that was verified, base64 of 48 bytes."""

    verdict: Annotated[Literal[1], Meta(description="version of this format")] = 1
    measurement: Annotated[str, Meta(max_length=64)]
    verified: bool

    @classmethod
    def about(cls, claims: HostClaims, *, verified: bool) -> Answer:
        """The answer about the launch that is claimed."""
        return cls(measurement=base64.b64encode(claims.blob).decode(), verified=verified)


def write_answer(file: Path, claims: HostClaims, tik: bytes, *, verified: bool) -> None:
    """Write the answer about the launch that is claimed, in place of an earlier one.

    :param tik: the transport integrity key of its session, 16 bytes.
    :raise UsageError: when it can't be written.
    """
    try:
        write_whole(file, Answer.about(claims, verified=verified).sealed(tik).to_bytes())
    except HostError as error:
        raise UsageError(error.message, hint="name another file: --verdict FILE") from error


def require_verified(file: Path, claims: HostClaims, tik: bytes) -> None:
    """Make sure that the answer in a file is a yes, about the launch that is claimed.

    :param tik: the transport integrity key of its session, 16 bytes.
    :raise InsecureUse: when it is not, or is not there.
    :raise UsageError: when it can't be read.
    """
    found = read_sealed(file, Answer, tik, what="the verdict", missing=_VERIFY_FIRST)
    wanted = Answer.about(claims, verified=True)
    if not hmac.compare_digest(found.measurement, wanted.measurement):
        raise InsecureUse(
            f"the verdict in {file} is about another launch than this of {claims.name}", hint=_VERIFY_FIRST
        )
    if not found.verified:
        raise InsecureUse(
            f"the launch of {claims.name} is not verified, says {file}: whoever made it would get the secret",
            hint="find out what differs: sevlaunch owner verify EVIDENCE",
        )
