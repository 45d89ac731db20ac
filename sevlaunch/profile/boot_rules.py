"""Rules about the credentials in the initrd, which are measured with it."""

from __future__ import annotations

from collections.abc import Iterator

from sevlaunch.profile.boot_values import MOST_INITRD_BYTES
from sevlaunch.profile.model import Profile
from sevlaunch.profile.violation import Violation


def check_boot(profile: Profile) -> Iterator[Violation]:
    """Every rule about it that ``profile`` breaks."""
    boot = profile.boot
    if boot.credentials and boot.initrd is None and boot.from_ is None:
        yield Violation(
            ("boot", "credentials"),
            "credentials are put behind the initrd, and there is none: set boot.initrd",
            (("boot", "initrd"),),
        )
    if sum(map(len, boot.credentials.values())) > MOST_INITRD_BYTES:
        yield Violation(
            ("boot", "credentials"),
            f"they have more than {MOST_INITRD_BYTES >> 10} KiB together, and systemd passes over the rest",
        )


def boot_cautions(profile: Profile) -> Iterator[Violation]:
    """What its user should know."""
    boot, security = profile.boot, profile.security
    if not boot.credentials or not security.encrypted:
        return
    if security.measures_boot:
        message = "they are measured, and not secret: the host reads them, and can't change them unnoticed"
        yield Violation(("boot", "credentials"), message)
    else:
        yield Violation(
            ("boot", "credentials"),
            "the host reads them, and can change them: nothing is measured without security.kernel_hashes",
            (("security",),),
        )
