"""Rules about a root under dm-verity: the disks that it takes, and what the command line can't say beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from sevlaunch.profile.model import Profile
from sevlaunch.profile.violation import Violation

# What udev leaves as it is in a link's name.
_SERIAL = r"[A-Za-z0-9_.-]+"
# Words of the command line that say where the root is, and those that verity's own words may not stand beside.
_MAPPED = {"systemd": "root=/dev/mapper/root", "kernel": "root=/dev/dm-0"}
_OWN = ("roothash", "systemd.verity", "systemd.verity_root_data", "systemd.verity_root_hash", "dm-mod.create")
_OWN_OPTIONS = ("systemd.verity_root_options", "usrhash")
# Linux' drivers/md/dm-init.c; behind vdz there are two letters.
_LETTERS = 26


def serial_of(profile: Profile, number: int) -> str:
    """The serial number of a disk of the root: the profile's own, or its name."""
    return profile.disks[number].serial or f"disk{number}"


def check_verity(profile: Profile) -> Iterator[Violation]:
    """Every rule about it that ``profile`` breaks."""
    said = profile.boot.verity
    if said is None:
        return
    path = ("boot", "verity")
    if not profile.boot.is_direct:
        message = "the root hash is put on the command line of a direct boot: it needs boot.kernel, or boot.from"
        yield Violation(path, message, (("boot", "kernel"), ("boot", "from")))
    if said.hash == said.data:
        message = f"data and tree are both on {said.data}: say hash: appended"
        yield Violation((*path, "hash"), message, ((*path, "data"),))
    named = {"data": said.data_disk} if said.hash == "appended" else {"data": said.data_disk, "hash": said.hash_disk}
    for key, number in named.items():
        if number < len(profile.disks):
            yield from _disk(profile, key, number)
        else:
            there = ", ".join(f"disk{index}" for index in range(len(profile.disks))) or "no disks"
            yield Violation((*path, key), f"there is no disk{number}; the profile has {there}", (("disks",),))
    yield from _cmdline(profile)


def verity_cautions(profile: Profile) -> Iterator[Violation]:
    """What its user should know."""
    security = profile.security
    if profile.boot.verity and security.encrypted and not security.measures_boot:
        yield Violation(
            ("boot", "verity"),
            "the root hash is on a command line that nothing measures: the host can change both; set "
            "security.kernel_hashes",
            (("security",),),
        )


def _disk(profile: Profile, key: str, number: int) -> Iterator[Violation]:
    disk, path, name = profile.disks[number], ("disks", number), f"disk{number}"
    why = f"boot.verity has {'the root' if key == 'data' else 'its hash tree'} on {name}"
    others = (("boot", "verity", key),)
    if disk.writes_overlay:
        message = f"{why}, and an overlay would hide what the tree vouches for: say read_only: true"
        yield Violation((*path, "overlay" if disk.overlay else "image"), f"{message}{_WRITABLE}", others)
    elif disk.writes:
        yield Violation(path, f"{why}, and what is written there breaks it: say read_only: true{_WRITABLE}", others)
    if disk.bus != "virtio-blk" or disk.cdrom:
        which = "cdrom" if disk.cdrom else "bus"
        message = f"{why}, and the command line names it as a virtio-blk disk: leave {which} out"
        yield Violation((*path, which), message, others)
    for sort in ("folder", "luks_key"):
        if getattr(disk, sort):
            message = f"{why}: wanted a raw or qcow2 image as it is, found {sort}"
            yield Violation((*path, sort), message, others)
    if disk.serial and not re.fullmatch(_SERIAL, disk.serial):
        message = f"{why}, and the guest finds it by its serial number: wanted letters, digits and . _ -"
        yield Violation((*path, "serial"), f"{message}, found {disk.serial!r}", others)
    for index, other in enumerate(profile.disks):
        if index != number and other.serial == serial_of(profile, number):
            message = f"{why}, and the guest finds it by its serial number, which this disk has, too: give it another"
            yield Violation(("disks", index, "serial"), message, (*others, (*path, "serial")))


# How the guest has what it writes.
_WRITABLE = "; what the guest writes, such as /var, goes to a disk of its own"


def _cmdline(profile: Profile) -> Iterator[Violation]:
    said = profile.boot.verity
    assert said is not None, "asked for a root that is under dm-verity"
    others = (("boot", "verity"),)
    boot = profile.boot
    said_words = [(key, word) for key in ("cmdline", "cmdline_extra") for word in (getattr(boot, key) or "").split()]
    for where, word in said_words:
        path = ("boot", where)
        key = word.partition("=")[0].removeprefix("rd.")
        if key in (*_OWN, *_OWN_OPTIONS):
            yield Violation(path, f"boot.verity puts {key} there: leave {word!r} out", others)
        elif key == "root" and word != _MAPPED[said.format]:
            message = f"{word!r} is another root than that of boot.verity, {_MAPPED[said.format]}: leave it out"
            yield Violation(path, message, others)
        elif word == "rw":
            yield Violation(path, "a root under dm-verity can't be written to: leave 'rw' out", others)
