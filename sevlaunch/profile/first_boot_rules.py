"""Rules about the seed of a first boot."""

from __future__ import annotations

from collections.abc import Iterator

from sevlaunch.profile.model import Profile
from sevlaunch.profile.model.first_boot import FirstBoot
from sevlaunch.profile.seed_values import goes_with_others
from sevlaunch.profile.violation import Violation

# What a seed says of its user, beside what user data says; with their defaults nobody asked for them.
_DEFAULTS = FirstBoot()
_MERGED = ("user", "ssh_keys", "password_hash", "files", "run", "packages")


def check_first_boot(profile: Profile) -> Iterator[Violation]:
    """Every rule about it that ``profile`` breaks."""
    first = profile.first_boot
    if first is None:
        return
    if first.password_hash and first.user is None:
        yield Violation(
            ("first_boot", "password_hash"),
            "the password is that of user, and there is none",
            (("first_boot", "user"),),
        )
    if _stands_alone(first):
        for key in _MERGED:
            if getattr(first, key) != getattr(_DEFAULTS, key):
                yield Violation(
                    ("first_boot", key),
                    f"user_data is of no kind that cloud-init takes beside other documents, so {key} would be lost: "
                    "leave one of them out, or begin user_data with #cloud-config or #!",
                    (("first_boot", "user_data"),),
                )
    paths = [file.path for file in first.files]
    for index, file in enumerate(first.files):
        if (file.content is None) == (file.source is None):
            found = "neither" if file.source is None else "both"
            yield Violation(("first_boot", "files", index), f"wanted one of content and source, found {found}")
        if file.path in paths[:index]:
            yield Violation(("first_boot", "files", index, "path"), f"two files have the path {file.path!r}")


def first_boot_cautions(profile: Profile) -> Iterator[Violation]:
    """What its user should know."""
    first = profile.first_boot
    if first is None:
        return
    bound = profile.initdata is not None and profile.initdata.binds_seed
    if profile.security.encrypted and not bound:
        yield Violation(
            ("first_boot",),
            "the host makes the seed and can change it, and no measurement says what is in it: it can let others into "
            "the guest; what the owner relies on is in the measured boot, or in the image; or bind the seed, as an SNP "
            "guest can: initdata: {bind: [first_boot]}",
        )
    if first.packages and not profile.networks:
        yield Violation(
            ("first_boot", "packages"),
            "packages come over a network, and the guest has none: set networks, such as [{type: user}]",
            (("networks",),),
        )
    if _stands_alone(first):
        yield Violation(
            ("first_boot", "user_data"),
            "it stands alone, since cloud-init would take it for none of its documents: no user is made, and no key "
            "gets in",
        )


def _stands_alone(first: FirstBoot) -> bool:
    return first.user_data is not None and not goes_with_others(first.user_data)
