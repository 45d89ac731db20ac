"""An ID block that sevlaunch makes: of the launch's own digest, once the files are read that are measured."""

from __future__ import annotations

from msgspec import Struct

from sevlaunch.plan.context import Context
from sevlaunch.plan.needs import NeededFile, Needs
from sevlaunch.plan.option import Reason
from sevlaunch.profile.model import IdKeys, SnpSecurity


class IdentityPlan(Struct, frozen=True, kw_only=True):
    """Who signs the ID block: the private keys in the files ``key`` and ``author``; without a key, nobody.

    ``wanted``: where the profile says so.
    """

    wanted: Reason
    key: str | None
    author: str | None
    remedy: str

    @property
    def needs(self) -> Needs:
        """The keys, which the launcher alone reads."""
        keys = ((self.key, "ID key"), (self.author, "author key"))
        return Needs(files=tuple(NeededFile(file, what, self.remedy, by_launcher=True) for file, what in keys if file))

    def reason(self, id_key_digest: bytes) -> Reason:
        """Why the block is as it is: what the guest's reports will show of its key (48 bytes)."""
        signed = "signed by nobody" if self.key is None else f"signed by the key in {self.key}"
        return Reason("profile", f"{self.wanted.text}: {signed}, ID key digest {id_key_digest.hex()}")


def resolve_identity(context: Context, security: SnpSecurity) -> IdentityPlan | None:
    """The ID block that the profile wants made; None: it has one, or wants none."""
    said = security.id_block
    if said is None or isinstance(said, bytes):
        return None
    keys = said if isinstance(said, IdKeys) else None
    return IdentityPlan(
        wanted=context.why("security", "id_block"),
        key=keys.key if keys else None,
        author=keys.author if keys else None,
        remedy=context.correct("security.id_block"),
    )
