"""What a profile with a direct boot boots, as its owner sees it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sevlaunch.errors import UsageError
from sevlaunch.host.model import boot_of
from sevlaunch.plan.direct_boot import DirectBoot, direct_boot, refusal

if TYPE_CHECKING:
    from sevlaunch.plan.plan import Plan
    from sevlaunch.profile.model import Profile


def boot_of_profile(profile: Profile, plan: Plan | None = None, *, with_verity: bool = True) -> DirectBoot:
    """The files and the command line that a profile with a direct boot boots.

    :param plan: its plan, where there is one; default: what is here is looked at.
    :param with_verity: put the words for a root under dm-verity on the command line.
    :raise UsageError: when it can't be booted, or nothing can be taken from its image.
    """
    if plan and plan.boot.kernel:
        boot = plan.boot
        return DirectBoot(
            kernel=plan.boot.kernel.value,
            initrd=boot.initrd.value if boot.initrd else None,
            cmdline=boot.cmdline.value if boot.cmdline else None,
            says=boot.says,
        )
    facts = boot_of(profile.boot.kernel, profile.boot_image)
    if found := refusal(profile, facts):
        key, message, hint = found
        raise UsageError(f"boot.{key}: {message}", hint=hint)
    words: Sequence[str] = ()
    if profile.boot.verity and with_verity:
        # Few guests have such a root.
        from sevlaunch.owner.verity import words_here

        words = words_here(profile)
    return direct_boot(profile.boot, facts, words)
