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


def keys_shown(profile: Profile | None, digests: Mapping[str, bytes], policy: int) -> dict[str, str | None]:
    """What reports of a launch will show of its ID block's keys, in hexadecimal; empty for all but SNP.

    Null: there is no such key, or the profile names one that is not here.
    """
    security = profile.security if profile else None
    if security is None or security.type != "sev-snp":
        return {}
    keys = security.id_block
    here = (
        keys is None
        or isinstance(keys, (bytes, str))
        or all(Path(one).exists() for one in (keys.key, keys.author) if one)
    )
    (digest,) = digests.values()
    signed = id_block_of(security, digest, policy) if here else None
    return {
        "id_key_digest": signed.id_key_digest.hex() if signed else None,
        "author_key_digest": (signed.author_key_digest.hex() or None) if signed else None,
    }
