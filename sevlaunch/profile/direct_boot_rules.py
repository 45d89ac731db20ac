"""What a guest boots: whether its kernel, or a disk to take it from, is there, and what goes with it."""

from __future__ import annotations

from collections.abc import Iterator

from sevlaunch.profile.model import Profile
from sevlaunch.profile.violation import Violation


def check_direct_boot(profile: Profile) -> Iterator[Violation]:
    """Every rule about boot that ``profile`` breaks."""
    yield from _direct_boot(profile)
    yield from _boot_order(profile)


def _direct_boot(profile: Profile) -> Iterator[Violation]:
    boot = profile.boot
    either = (("boot", "kernel"), ("boot", "from"))
    if boot.initrd is not None and boot.kernel is None and boot.from_ is None:
        yield Violation(("boot", "initrd"), "initrd needs boot.kernel", either)
    for key in ("cmdline", "cmdline_extra"):
        if getattr(boot, key) is not None and not boot.is_direct:
            yield Violation(("boot", key), f"{key} needs boot.kernel, or boot.from", either)
    if profile.security.measures_boot and not boot.is_direct:
        yield Violation(
            ("security", "kernel_hashes"),
            "kernel_hashes measures a direct boot: it needs boot.kernel, or boot.from with a disk to take all from",
            either,
        )
    if boot.from_index is None:
        return
    for key in ("kernel", "initrd"):
        if getattr(boot, key) is not None:
            yield Violation(
                ("boot", key), f"{key} is taken from {boot.from_}: leave one of them out", (("boot", "from"),)
            )
    if boot.from_index >= len(profile.disks):
        found = f"disk0 to disk{len(profile.disks) - 1}" if profile.disks else "no disks"
        yield Violation(("boot", "from"), f"there is no {boot.from_}; the profile has {found}", (("disks",),))
        return
    disk = profile.disks[boot.from_index]
    if disk.folder:
        yield Violation(
            ("boot", "from"),
            f"{boot.from_} is made of a folder: name its kernel itself (boot.kernel)",
            (("disks", boot.from_index),),
        )
    if disk.luks_key:
        yield Violation(
            ("boot", "from"),
            f"{boot.from_} is encrypted (LUKS), and no kernel is taken from it: name one (boot.kernel)",
            (("disks", boot.from_index, "luks_key"),),
        )


def direct_boot_cautions(profile: Profile) -> Iterator[Violation]:
    """What the user of a direct boot should know."""
    index = profile.boot.from_index
    if index is None or index >= len(profile.disks) or not profile.security.measures_boot:
        return
    if profile.disks[index].writes_source:
        yield Violation(
            ("boot", "from"),
            f"the guest writes to {profile.boot.from_}: when it installs another kernel, or its initrd anew, the next "
            "launch has another digest; an image (disks: [{image: ...}]) stays as it is",
        )


def _boot_order(profile: Profile) -> Iterator[Violation]:
    known = {f"disk{index}" for index in range(len(profile.disks))}
    known |= {f"net{index}" for index in range(len(profile.networks))}
    for index, device in enumerate(profile.boot.order):
        if device not in known:
            found = ", ".join(sorted(known)) or "no disks and no networks"
            section = "disks" if device.startswith("disk") else "networks"
            yield Violation(("boot", "order", index), f"there is no {device}; the profile has {found}", ((section,),))
        elif device in profile.boot.order[:index]:
            yield Violation(("boot", "order", index), f"{device} stands in the order twice")
