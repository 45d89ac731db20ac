"""A root under dm-verity as its owner expects it: by the images that he has himself."""

from __future__ import annotations

from sevlaunch.errors import UsageError
from sevlaunch.host.facts import VerityFacts
from sevlaunch.host.verity import check_verity, verity_facts
from sevlaunch.plan.verity import differs, tree_said, verity_words
from sevlaunch.profile.model import Profile


def words_here(profile: Profile) -> tuple[str, ...]:
    """The words for the root on the command line.

    :raise UsageError: when there is no tree, or it is another one than the profile wants.
    """
    said, found = profile.boot.verity, _found(profile)
    assert said is not None, "asked for a root that is under dm-verity"
    return verity_words(profile, said, found)


def check_here(profile: Profile, *, look: bool = True) -> str:
    """See that all data of the root is what its hash tree says; the root hash.

    An owner who says the root hash himself needs no images: then there is nothing to look at.

    :param look: False: somebody has.
    :raise UsageError: when data or tree were changed.
    """
    said, sources, found = profile.boot.verity, profile.verity, _found(profile)
    assert said is not None, "asked for a root that is under dm-verity"
    assert sources is not None, "asked for a root that is under dm-verity"
    if look and found.data_blocks:
        names = (said.data, said.data if said.hash == "appended" else said.hash)
        check_verity(*sources, found.root_hash, names=names, error=UsageError)
    return found.root_hash


def _found(profile: Profile) -> VerityFacts:
    said, sources = profile.boot.verity, profile.verity
    assert said is not None, "asked for a root that is under dm-verity"
    assert sources is not None, "asked for a root that is under dm-verity"
    found = verity_facts(*sources)
    if found.missing:
        found = tree_said(said, sources) or found
    if found.problem:
        raise UsageError(
            f"no hash tree of {said.data} ({sources[0]}) can be read: {found.problem}",
            hint="the root hash is on the command line: give that, --cmdline TEXT, or its hash, --cmdline-hash",
        )
    if said.root_hash not in ("auto", found.root_hash):
        raise UsageError(differs(said, found), hint="one of them is of another image")
    return found
