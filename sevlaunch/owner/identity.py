"""The ID block that a profile asks for: made of the launch's digest and policy, or given."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sevlaunch.owner.id_block import SignedIdBlock, anonymous_id_block, read_private_key, sign_id_block, signed_block
from sevlaunch.sevapi.id_block import IdBlock

if TYPE_CHECKING:
    from sevlaunch.profile.model import Profile, SnpSecurity


def id_block_of(security: SnpSecurity, digest: bytes, policy: int) -> SignedIdBlock | None:
    """The ID block of a launch, signed; None: there is none.

    :param digest: of the launch, 48 bytes.
    :raise UsageError: when a key can't be read, or others may read it.
    """
    said = security.id_block
    if said is None:
        return None
    if isinstance(said, bytes):
        return signed_block(said, security.id_auth or b"")
    if said == "anonymous":
        return anonymous_id_block(digest, policy)
    author = read_private_key(Path(said.author), "author key") if said.author else None
    return sign_id_block(IdBlock(digest, policy), read_private_key(Path(said.key), "ID key"), author)


def report_shows(profile: Profile | None, digests: Mapping[str, bytes], policy: int) -> dict[str, str | None]:
    """What reports of a launch will show beside its digest: host data and the ID block's keys; empty for all but SNP.

    All are hexadecimal. Null: there is none, or the profile names a key that is not here.

    :raise UsageError: when a key, or a file that is bound, can't be read.
    """
    if profile is None or profile.security.type != "sev-snp":
        return {}
    security = profile.security
    keys = security.id_block
    here = (
        keys is None
        or isinstance(keys, (bytes, str))
        or all(Path(one).exists() for one in (keys.key, keys.author) if one)
    )
    (digest,) = digests.values()
    signed = id_block_of(security, digest, policy) if here else None
    return {
        "host_data": _host_data(profile, security),
        "id_key_digest": signed.id_key_digest.hex() if signed else None,
        "author_key_digest": (signed.author_key_digest.hex() or None) if signed else None,
    }


def _host_data(profile: Profile, security: SnpSecurity) -> str | None:
    if profile.initdata is None:
        return security.host_data.hex() if security.host_data else None
    from sevlaunch.image.initdata import initdata_document
    from sevlaunch.profile.initdata_values import parse_initdata

    return parse_initdata(initdata_document(profile)).host_data.hex()
