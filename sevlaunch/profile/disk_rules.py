"""Rules about disks: what a bus can't do, what contradicts itself, and what two disks can't share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sevlaunch.image_reference import is_url
from sevlaunch.profile.model import BASE_FORMATS, Disk, Profile
from sevlaunch.profile.seats import bus_group
from sevlaunch.profile.violation import Violation
from sevlaunch.remedies import FLATTEN

_ATA = ("sata", "ide")
_VIRTIO = ("virtio-blk", "virtio-scsi")
# hw/block/block.c of QEMU, blkconf_blocksizes(); hw/ide/qdev.c takes the smallest alone.
_SMALLEST_BLOCK, _LARGEST_BLOCK = 512, 2 << 20


def check_disks(profile: Profile) -> Iterator[Violation]:
    """Every rule about disks that ``profile`` breaks."""
    for index, disk in enumerate(profile.disks):
        yield from _source(index, disk, profile)
        yield from _ide(index, disk, profile)
        yield from _bus(index, disk)
        yield from _io(index, disk)
        yield from _block_size(index, disk)
        yield from _throttle(index, disk)
        yield from _luks(index, disk)
    yield from _slots(profile)
    for key in ("iothread", "queues"):
        yield from _one_controller(profile, key)


def disk_cautions(profile: Profile) -> Iterator[Violation]:
    """What a disk may have, and does not do what it looks like."""
    for index, disk in enumerate(profile.disks):
        if disk.luks_key and profile.security.encrypted:
            yield Violation(
                ("disks", index, "luks_key"),
                "the host has the key and reads the disk: what is to be hidden from it, the guest itself encrypts",
            )


def _source(index: int, disk: Disk, profile: Profile) -> Iterator[Violation]:
    path = ("disks", index)
    sources = [key for key in Disk.one_of if getattr(disk, key)]
    if not sources:
        message = (
            "wanted path (what the guest writes to: an image or block device), image (what is never written) or folder "
            "(what a read-only disk is made of)"
        )
        yield Violation(path, message, tuple((*path, key) for key in Disk.one_of))
    for key in sources[1:]:
        message = (
            "path is an image that is written to, image one that never is, folder what a read-only disk is made of: "
            f"leave out either {sources[0]} or {key}"
        )
        yield Violation((*path, key), message, ((*path, sources[0]),))
    if disk.source in [other.source for other in profile.disks[:index] if disk.writes_source or other.writes_source]:
        yield Violation(
            (*path, disk.said_by),
            "the same image stands in the list twice, and is writable",
            ((*path, "read_only"), (*path, "cdrom")),
        )
    if disk.is_fetched and is_url(disk.image or "") and not disk.sha256:
        message = "an image that is named by its URL takes sha256, what it has to be; nothing else vouches for it"
        yield Violation((*path, "image"), message, ((*path, "sha256"),))
    if disk.sha256 and not disk.is_fetched:
        message = "sha256 is for an image that is fetched, by its URL or its name: leave it out"
        yield Violation((*path, "sha256"), message, ((*path, "image"), (*path, "path")))
    yield from _overlay(index, disk)
    yield from _folder(index, disk)


def _folder(index: int, disk: Disk) -> Iterator[Violation]:
    path = ("disks", index)
    if disk.label and not disk.folder:
        yield Violation((*path, "label"), "label is for the disk of a folder: leave it out", ((*path, "folder"),))
    for key in ("format", "luks_key"):
        if disk.folder and getattr(disk, key):
            message = f"{key} is for an image, and the disk of a folder is made anew at each start: leave it out"
            yield Violation((*path, key), message, ((*path, "folder"),))


def _overlay(index: int, disk: Disk) -> Iterator[Violation]:
    path = ("disks", index)
    for key in ("overlay", "size"):
        if getattr(disk, key) is not None and not disk.image:
            message = (
                f"{key} is for a disk of an image that is never written: say image in place of path, or leave it out"
            )
            yield Violation((*path, key), message, ((*path, "image"),))
        elif getattr(disk, key) is not None and not disk.writes:
            which = disk.reads_by
            message = f"{key} is about what is written, and nothing is written to this disk: leave it out"
            yield Violation((*path, key), message, ((*path, which),))
    if disk.image and disk.luks_key:
        message = "an image with a key has no overlay, which would hold in the clear what is written: use path"
        yield Violation((*path, "luks_key"), message, ((*path, "image"),))
    if disk.image and disk.format and disk.format not in BASE_FORMATS:
        wanted = f"wanted {' or '.join(BASE_FORMATS)} for an image that is never written, found {disk.format}"
        message = f"{wanted}: {FLATTEN.format(disk.image)}"
        yield Violation((*path, "format"), message, ((*path, "image"),))


def _ide(index: int, disk: Disk, profile: Profile) -> Iterator[Violation]:
    encrypted = profile.security.encrypted
    if disk.bus == "ide" and (encrypted or "q35" in profile.machine):
        what = "an encrypted guest can't have IDE disks, as q35" if encrypted else "q35"
        yield Violation(
            ("disks", index, "bus"),
            f"{what} has no IDE controller: use virtio-blk, virtio-scsi, nvme or sata",
            (("machine",), ("security",)),
        )


def _bus(index: int, disk: Disk) -> Iterator[Violation]:
    path = ("disks", index)
    if disk.bus in _ATA and not disk.writes and not disk.cdrom:
        yield Violation(
            (*path, disk.reads_by),
            f"{disk.bus.upper()} disks can't be read-only: use virtio-blk or cdrom: true",
            ((*path, "cdrom"),),
        )
    if disk.cdrom and disk.bus in ("virtio-blk", "nvme"):
        message = f"{disk.bus} has no CD-ROM drives: use bus: sata or virtio-scsi"
        yield Violation((*path, "cdrom"), message, ((*path, "bus"),))
    if disk.iothread and disk.bus not in _VIRTIO:
        message = f"a {disk.bus} disk has no I/O thread: use virtio-blk or virtio-scsi, or leave it out"
        yield Violation((*path, "iothread"), message, ((*path, "bus"),))
    if disk.queues and disk.bus in _ATA:
        message = f"a {disk.bus.upper()} disk has one queue: use virtio-blk, virtio-scsi or nvme, or leave it out"
        yield Violation((*path, "queues"), message, ((*path, "bus"),))


def _io(index: int, disk: Disk) -> Iterator[Violation]:
    path = ("disks", index)
    if disk.aio == "native" and disk.cache not in ("none", "directsync"):
        yield Violation(
            (*path, "aio"),
            f"aio: native goes past the host's cache, found cache: {disk.cache}: use cache: none or directsync",
            ((*path, "cache"),),
        )
    if disk.detect_zeroes == "unmap" and not disk.discard:
        yield Violation(
            (*path, "detect_zeroes"),
            "detect_zeroes: unmap needs discard: use detect_zeroes: true, or leave discard on",
            ((*path, "discard"),),
        )
    if disk.detect_zeroes and not disk.writes:
        which = disk.reads_by
        message = "detect_zeroes is about what is written, and nothing is written to this disk: leave it out"
        yield Violation((*path, "detect_zeroes"), message, ((*path, which),))


def _block_size(index: int, disk: Disk) -> Iterator[Violation]:
    size = disk.logical_block_size
    if size is None:
        return
    path = ("disks", index, "logical_block_size")
    if size & (size - 1) or not _SMALLEST_BLOCK <= size <= _LARGEST_BLOCK:
        yield Violation(path, f"wanted a power of two from 512 bytes to 2M, found {size} bytes")
    elif disk.cdrom or (disk.bus in _ATA and size != _SMALLEST_BLOCK):
        what = "a CD-ROM has blocks of 2048 bytes" if disk.cdrom else f"{disk.bus.upper()} disks have 512-byte blocks"
        others = (("disks", index, "bus"), ("disks", index, "cdrom"))
        yield Violation(path, f"{what}: leave it out, or use virtio-blk, virtio-scsi or nvme", others)


def _throttle(index: int, disk: Disk) -> Iterator[Violation]:
    throttle = disk.throttle
    if throttle is None:
        return
    path = ("disks", index, "throttle")
    for key in ("iops", "bytes"):
        parts = [f"{key}_{what}" for what in ("read", "write") if getattr(throttle, f"{key}_{what}") is not None]
        if getattr(throttle, key) is not None and parts:
            others = tuple((*path, part) for part in parts)
            message = f"{key} is for reads and writes together: leave out either it or {' and '.join(parts)}"
            yield Violation((*path, key), message, others)
    if not any(getattr(throttle, key) is not None for key in throttle.__struct_fields__):
        yield Violation(path, f"it limits nothing: give one of {', '.join(throttle.__struct_fields__)}")


def _luks(index: int, disk: Disk) -> Iterator[Violation]:
    path = ("disks", index)
    if disk.format == "luks" and not disk.luks_key:
        yield Violation(
            (*path, "format"),
            "format: luks has QEMU open it, which needs luks_key; a disk that the guest opens itself is raw: "
            "leave format out",
            ((*path, "luks_key"),),
        )
    if disk.luks_key and disk.format not in (None, "luks", "qcow2"):
        yield Violation(
            (*path, "luks_key"),
            f"a {disk.format} image has no LUKS in it: leave one of luks_key and format out",
            ((*path, "format"),),
        )


def _slots(profile: Profile) -> Iterator[Violation]:
    taken: dict[tuple[str, int], int] = {}
    for index, disk in enumerate(profile.disks):
        if disk.slot is None:
            continue
        first = taken.setdefault((bus_group(disk.bus), disk.slot), index)
        if first != index:
            message = f"disks.{first} is on slot {disk.slot} of the same bus: give this one another"
            yield Violation(("disks", index, "slot"), message, (("disks", first, "slot"), ("disks", index, "bus")))


def _one_controller(profile: Profile, key: str) -> Iterator[Violation]:
    """All virtio-scsi disks are on one controller, whose thread and queues they share."""
    first: tuple[int, Any] | None = None
    for index, disk in enumerate(profile.disks):
        value = getattr(disk, key) if disk.bus == "virtio-scsi" else None
        if value is None:
            continue
        if first and value != first[1]:
            yield Violation(
                ("disks", index, key),
                f"{key} is that of the controller of all virtio-scsi disks, and disks.{first[0]} says {first[1]}: "
                "say the same, or leave it out",
                (("disks", first[0], key), ("disks", index, "bus")),
            )
        first = first or (index, value)
