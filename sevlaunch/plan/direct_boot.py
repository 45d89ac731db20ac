"""What a direct boot amounts to: the profile's word on kernel, initrd and command line, and what was found for it.

The plan of a host and the owner's digest both have it from here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from msgspec import Struct

from sevlaunch.host.facts import BootFacts, UkiFacts
from sevlaunch.profile.model import Boot, Profile

# Names of a root file system that the kernel, or an initrd, looks for.
_ROOT = re.compile(r"(?:^|\s)root=\"?((?:UUID|LABEL|PARTUUID|PARTLABEL)=[^\s\"]+)")
# The kernel's names of disks, by their drivers.
_DEVICE = re.compile(r"(?:^|\s)root=(/dev/(vd|sd|nvme)[a-z0-9]+)")
_BUSES = {"vd": ("virtio-blk",), "sd": ("virtio-scsi", "sata"), "nvme": ("nvme",)}
# What says where the root is; systemd's initrd also takes it from a verity root's hash.
_ANY_ROOT = re.compile(r"(?:^|\s)(?:root|roothash|usrhash|mount\.usr|systemd\.verity_root_data)=")
_ANOTHER_ROOT = re.compile(r"(?:^|\s)(?:root=\S*|ro|rw)(?=\s|$)")
# systemd-stub takes a profile's number from the front: src/boot/stub.c, parse_profile_from_cmdline.
_PROFILE = re.compile(r"@[0-9]+(?: |$)")


class DirectBoot(Struct, frozen=True):
    """What QEMU is handed: paths of files, and the command line; None: none.

    ``says``: what a unified kernel image says of itself; empty for another kernel.
    """

    kernel: str
    initrd: str | None
    cmdline: str | None
    says: str = ""


def direct_boot(boot: Boot, facts: BootFacts | None, further: Sequence[str] = ()) -> DirectBoot:
    """What is booted.

    :param facts: what was found, in which there is no problem; None: nobody has looked, and the profile names all.
    :param further: words that say where a root under dm-verity is, behind all others.
    """
    found = facts or BootFacts()
    own = found.uki.cmdline if found.uki else None
    # A unified image has its own command line: QEMU's is for what is to be in its place.
    told = found.cmdline if boot.from_ and found.cmdline != own else None
    cmdline = boot.cmdline if boot.cmdline is not None else told
    if boot.cmdline_extra is not None or further:
        # The image's own root is another one.
        before = _ANOTHER_ROOT.sub("", told or own or "") if further and boot.cmdline is None else cmdline
        before = before if before is not None else own
        cmdline = " ".join(filter(None, (before, boot.cmdline_extra, *further)))
    return DirectBoot(
        kernel=boot.kernel or found.kernel,
        initrd=boot.initrd or found.initrd or None,
        cmdline=cmdline,
        says=described(found.uki) if found.uki else "",
    )


def refusal(profile: Profile, facts: BootFacts | None) -> tuple[str, str, str] | None:
    """Why it can't be booted: the key of boot that is to blame, the reason, and what to do; None: it can."""
    boot = profile.boot
    if facts is None:
        if boot.from_ is None:
            return _without_initrd(boot, facts)
        return "from", f"nobody has looked into the image of {boot.from_}", "from a program: Host.probe(boot_image=...)"
    if facts.problem:
        return "from" if boot.from_ else "kernel", facts.problem, facts.hint
    if facts.uki is None:
        if boot.from_ and boot.cmdline is None and facts.cmdline is None:
            message = f"{facts.places['kernel']} of {boot.from_} has no command line beside it"
            return "from", message, "give one: boot.cmdline, with root="
        return _without_initrd(boot, facts)
    if boot.initrd is not None:
        # hw/i386/x86-common.c, x86_load_linux: no header of Linux, no initrd.
        return (
            "initrd",
            "the kernel is a unified image, which has its initrd in itself: QEMU hands it no other",
            "leave initrd out, or build the image with it",
        )
    if boot.credentials:
        return (
            "credentials",
            "the kernel is a unified image, which has its initrd in itself: there is none to put them behind",
            "build the image with them, or name kernel and initrd",
        )
    for key in ("cmdline", "cmdline_extra"):
        if getattr(boot, key) is not None and facts.uki.cmdline is not None and profile.firmware.secure_boot:
            return (
                key,
                "the kernel is a unified image with a command line of its own, and under secure boot it takes no other",
                f"leave {key} out, or build the image with it",
            )
    return None


def _without_initrd(boot: Boot, facts: BootFacts | None) -> tuple[str, str, str] | None:
    """What can't do without an initrd, where there is none; the kernel is no unified image."""
    if boot.initrd or (facts and facts.initrd):
        return None
    if boot.credentials:
        return "credentials", "credentials are put behind the initrd, and there is none", "set boot.initrd"
    if boot.verity and boot.verity.format == "systemd":
        message = "systemd's words for a root under dm-verity are for an initrd, and there is none"
        return "verity", message, "set boot.initrd, or boot.verity.format: kernel"
    return None


def cautions(profile: Profile, facts: BootFacts | None) -> Iterator[str]:
    """What may be wrong with the boot, for one that :func:`refusal` has nothing against."""
    if facts is None:
        return
    boot = profile.boot
    cmdline = direct_boot(boot, facts).cmdline or (facts.uki.cmdline if facts.uki else None) or ""
    if boot.from_ and boot.verity:
        yield from (f"boot.from: {boot.from_}, {caution}" for caution in facts.cautions)
    elif boot.from_:
        yield from (f"boot.from: {boot.from_}, {caution}" for caution in facts.cautions)
        named = _ROOT.search(cmdline)
        there = set(map(_as_compared, facts.roots))
        if named and facts.all_named and len(profile.disks) == 1 and _as_compared(named[1]) not in there:
            yield (
                f"the command line has root={named[1]}, and the image of {boot.from_} has no such file system: it has "
                f"{', '.join(facts.roots) or 'none with a name'}"
            )
        elif (device := _DEVICE.search(cmdline)) and not any(disk.bus in _BUSES[device[2]] for disk in profile.disks):
            yield (
                f"the command line has root={device[1]}, and no disk of the guest is called so: {boot.from_} is on "
                f"{profile.disks[boot.from_index or 0].bus}; better: root=UUID=..., which is the same on every bus"
            )
        elif not _ANY_ROOT.search(cmdline) and not _PROFILE.match(cmdline):
            yield f"the command line says nothing of the root file system (root=): {cmdline!r}"
    if facts.uki and facts.uki.cmdline is not None and boot.cmdline and not _PROFILE.match(boot.cmdline):
        yield (
            f"boot.cmdline takes the place of the unified kernel image's own, {facts.uki.cmdline!r}; to add to that: "
            "boot.cmdline_extra"
        )


def _as_compared(name: str) -> str:
    """A name of a file system as it is looked for: labels in capitals are others."""
    key, _, value = name.partition("=")
    return f"{key}={value.lower() if 'UUID' in key else value}"


def described(uki: UkiFacts) -> str:
    """What a unified image says of itself, in a line."""
    parts = [uki.name or "of an unnamed system", f"Linux {uki.uname}" if uki.uname else ""]
    parts.append(f"initrd of {uki.initrd_bytes} bytes" if uki.initrd_bytes else "no initrd")
    parts.append("no command line" if uki.cmdline is None else f"command line {uki.cmdline!r}")
    parts.append(f"{uki.profiles} profiles" if uki.profiles > 1 else "")
    return f"unified kernel image: {'; '.join(filter(None, parts))}"
