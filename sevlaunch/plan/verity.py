"""A root under dm-verity: which words of the kernel's command line say so. What measures them measures the root."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from sevlaunch.host.facts import VerityFacts
from sevlaunch.plan.context import Context
from sevlaunch.plan.option import Choice, rule
from sevlaunch.profile.model import Profile
from sevlaunch.profile.model.boot import Verity
from sevlaunch.profile.seats import seats
from sevlaunch.profile.verity_rules import serial_of

# What veritysetup, and the kernel, call the device.
_NAME = "root"
_SECTOR = 512


class VerityPlan(Struct, frozen=True, kw_only=True):
    """The root of a guest: ``data`` and ``hashes`` are its disks in the profile, and ``sources`` their images.

    ``checked``: somebody has seen that the data is what the tree says, or does not want to: the start does not look.
    """

    root_hash: Choice[str]
    data: str
    hashes: str
    sources: tuple[str, str | None]
    words: tuple[str, ...]
    checked: bool = False


def resolve_verity(context: Context) -> VerityPlan | None:
    """The root of the profile, if it is under dm-verity."""
    profile = context.profile
    said, sources = profile.boot.verity, profile.verity
    if said is None or sources is None:
        return None
    found = context.host.verity
    if found is None or (found.data, found.hashes) != sources:
        found = tree_said(said, sources)
        if found is None:
            context.lack(
                f"nobody has looked at the hash tree of {said.data}, whose root boot.verity puts on the command line",
                hint="from a program: Host.probe(verity=profile.verity)",
            )
            return None
    if found.missing:
        found = tree_said(said, sources) or found
    if found.problem:
        context.refuse(f"no hash tree of {said.data} can be read: {found.problem}", "boot", "verity", hint=_MAKE)
        return None
    if said.root_hash not in ("auto", found.root_hash):
        context.refuse(differs(said, found), "boot", "verity", "root_hash", hint="one of them is of another image")
    root_hash = context.choice(said.root_hash, "boot", "verity", "root_hash")
    if said.root_hash == "auto":
        root_hash = Choice(found.root_hash, rule("the hash of the tree's top block"))
    hashes = said.data if said.hash == "appended" else said.hash
    words = verity_words(profile, said, found)
    return VerityPlan(root_hash=root_hash, data=said.data, hashes=hashes, sources=sources, words=words)


def tree_said(said: Verity, sources: tuple[str, str | None]) -> VerityFacts | None:
    """The tree as far as the profile says it itself, where that is enough for the command line."""
    if said.root_hash == "auto" or said.hash == "appended" or said.format != "systemd":
        return None
    return VerityFacts(data=sources[0], hashes=sources[1], root_hash=said.root_hash)


_MAKE = "make one: sevlaunch image verity IMAGE"


def differs(said: Verity, found: VerityFacts) -> str:
    """That the root hash is another one, for messages."""
    return f"the hash tree of {said.data} has the root hash {found.root_hash}, and boot.verity wants {said.root_hash}"


def verity_words(profile: Profile, said: Verity, found: VerityFacts) -> tuple[str, ...]:
    """The words that are put behind the profile's own command line."""
    words = _systemd(profile, said, found) if said.format == "systemd" else _kernel(profile, said, found)
    own = f"{profile.boot.cmdline or ''} {profile.boot.cmdline_extra or ''}".split()
    return tuple(word for word in words if word not in own)


def _systemd(profile: Profile, said: Verity, found: VerityFacts) -> Sequence[str]:
    """systemd-veritysetup-generator(8)."""
    data, hashes = (_by_id(profile, number) for number in (said.data_disk, said.hash_disk))
    words = [f"roothash={found.root_hash}", f"systemd.verity_root_data={data}", f"systemd.verity_root_hash={hashes}"]
    if found.offset:
        words.append(f"systemd.verity_root_options=hash-offset={found.offset}")
    return (*words, f"root=/dev/mapper/{_NAME}", "ro")


def _by_id(profile: Profile, number: int) -> str:
    """The name of a virtio-blk disk that depends on its serial number alone: udev's 60-persistent-storage.rules."""
    return f"/dev/disk/by-id/virtio-{serial_of(profile, number)}"


def _kernel(profile: Profile, said: Verity, found: VerityFacts) -> Sequence[str]:
    """Linux' Documentation/admin-guide/device-mapper/dm-init.rst, with verity's table: its dm-verity-target.c."""
    data, hashes = (_in_order(profile, number) for number in (said.data_disk, said.hash_disk))
    sectors = found.data_blocks * found.data_block_size // _SECTOR
    start = found.start // found.hash_block_size
    blocks = f"{found.data_block_size} {found.hash_block_size} {found.data_blocks} {start}"
    table = f"verity 1 {data} {hashes} {blocks} {found.algorithm} {found.root_hash} {found.salt or '-'}"
    return (f'dm-mod.create="{_NAME},,,ro,0 {sectors} {table}"', "root=/dev/dm-0", "ro")


def _in_order(profile: Profile, number: int) -> str:
    """The name that the kernel gives a virtio-blk disk: in the order of their places, see plan.addresses."""
    places = seats(profile.disks)
    before = [
        index for index, disk in enumerate(profile.disks) if disk.bus == "virtio-blk" and places[index] < places[number]
    ]
    return f"/dev/vd{chr(ord('a') + len(before))}"
