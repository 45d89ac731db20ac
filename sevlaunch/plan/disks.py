"""Disks for a profile that has some: where each is, what is behind it, and what they hang on."""

from __future__ import annotations

from collections.abc import Iterator

from sevlaunch.plan.boot import boot_index
from sevlaunch.plan.context import Context
from sevlaunch.plan.disk import DiskPlan, ScsiPlan
from sevlaunch.plan.disk_image import LIMITS, ImagePlan
from sevlaunch.plan.folder_disk import resolve_folder_disk
from sevlaunch.plan.needs import is_device
from sevlaunch.plan.option import Choice, Parameter, rule
from sevlaunch.plan.overlay import resolve_overlay
from sevlaunch.plan.storage import StoragePlan
from sevlaunch.profile.io_threads import SCSI_CONTROLLER, thread_name
from sevlaunch.profile.model import Disk
from sevlaunch.profile.places import own_sata
from sevlaunch.profile.seats import SATA_PORTS, SCSI_BOOT_TARGETS, seats
from sevlaunch.remedies import fetching


def resolve_disks(context: Context) -> StoragePlan:
    """The disks of the profile, what is behind each, and what they hang on."""
    disks = context.profile.disks
    places = seats(disks)
    last_sata = max((place for disk, place in zip(disks, places, strict=True) if disk.bus == "sata"), default=-1)
    added = range(last_sata // SATA_PORTS + 1 - own_sata(context.root_bus))
    threads = {
        thread.value: thread
        for index, disk in enumerate(disks)
        if (thread := _iothread(context, index, disk)) is not None
    }
    return StoragePlan(
        iothreads=tuple(threads.values()),
        scsi=_scsi(context),
        sata=tuple(context.address("sata", number) for number in added),
        disks=tuple(_disk(context, index, disk, places[index]) for index, disk in enumerate(disks)),
    )


def _scsi(context: Context) -> ScsiPlan | None:
    """The controller, where there are disks for it. What it has, one of the disks says: they agree."""
    disks = [(index, disk) for index, disk in enumerate(context.profile.disks) if disk.bus == "virtio-scsi"]
    if not disks:
        return None
    threads = (thread for index, disk in disks if (thread := _iothread(context, index, disk)))
    queues = (context.choice(disk.queues, "disks", index, "queues") for index, disk in disks if disk.queues)
    address = context.address("scsi")
    return ScsiPlan(address=address, iothread=next(threads, None), queues=next(queues, None), dma_api=context.dma_api())


def _iothread(context: Context, index: int, disk: Disk) -> Choice[str] | None:
    """The name of a disk's I/O thread, or none."""
    return context.choice_or_none(thread_name(index, disk), "disks", index, "iothread")


def _place(context: Context, index: int, disk: Disk, seat: int) -> Iterator[Parameter]:
    """The place of a disk, the ``seat``-th on its bus."""
    why = context.why("disks", index, "slot", default="each disk has its place on the bus, and CD-ROMs the last ones")
    if disk.bus in ("virtio-blk", "nvme"):
        yield from context.address("disk", seat).parameters()
    elif disk.bus == "virtio-scsi":
        if seat >= SCSI_BOOT_TARGETS and f"disk{index}" in context.profile.boot.order:
            context.warn(
                f"boot.order names disk{index}, and OVMF looks at the first {SCSI_BOOT_TARGETS} virtio-scsi disks "
                "alone: move it to the front, or give it a slot there"
            )
        yield Parameter("bus", f"{SCSI_CONTROLLER}.0", why)
        yield Parameter("scsi-id", str(seat), why)
    elif disk.bus == "sata":
        controller, port = divmod(seat, SATA_PORTS)
        added = controller - own_sata(context.root_bus)
        yield Parameter("bus", f"ide.{port}" if added < 0 else f"sata{added}.{port}", why)
    else:
        channel, unit = divmod(seat, 2)
        yield Parameter("bus", f"ide.{channel}", why)
        yield Parameter("unit", str(unit), why)


def _disk(context: Context, index: int, disk: Disk, seat: int) -> DiskPlan:
    path = ("disks", index)
    _check_aio(context, index, disk)
    if disk.bus == "nvme":
        context.need_device("nvme", f"disks.{index}")
    # The drive has no name of its own for that: QEMU takes no NVMe disk without a serial number.
    serial = Choice(f"disk{index}", rule("an NVMe disk has a serial number")) if disk.bus == "nvme" else None
    root = context.profile.boot.verity
    if root and index in (root.data_disk, root.hash_disk):
        serial = Choice(f"disk{index}", context.why("boot", "verity"))
    return DiskPlan(
        index=index,
        image=_image(context, index, disk),
        bus=context.choice(disk.bus, *path, "bus"),
        cdrom=disk.cdrom,
        serial=context.choice_or_none(disk.serial, *path, "serial") or serial,
        block_size=context.choice_or_none(disk.logical_block_size, *path, "logical_block_size"),
        boot_index=boot_index(context, f"disk{index}"),
        place=tuple(_place(context, index, disk, seat)),
        iothread=_iothread(context, index, disk),
        queues=context.choice_or_none(disk.queues, *path, "queues"),
        dma_api=context.dma_api(disk.iommu_platform, *path, "iommu_platform"),
    )


def _check_aio(context: Context, index: int, disk: Disk) -> None:
    """Note what keeps QEMU from the way to read and write that a disk asks for."""
    qemu, kernel, asked = context.qemu, context.host.io_uring, f"disks.{index} asks for aio: {disk.aio}"
    if qemu.aio and disk.aio not in qemu.aio:
        context.lack(
            f"{asked}, which QEMU {qemu.version} is built without",
            hint="use aio: threads, or a QEMU that has it: set qemu.binary",
        )
    elif disk.aio == "io_uring" and kernel and not kernel.usable:
        context.lack(
            f"{asked}, and io_uring can't be used here: {kernel.error}",
            hint="use aio: threads, or allow it: sysctl kernel.io_uring_disabled=0, or the container's seccomp profile",
        )
    elif disk.aio == "io_uring" and kernel and kernel.is_for_a_group and context.other_user:
        context.warn(
            f"{asked}, and kernel.io_uring_disabled is 1: {context.other_user} has it only as a member of the group of "
            "kernel.io_uring_group"
        )


def _image(context: Context, index: int, disk: Disk) -> ImagePlan:
    path = ("disks", index)
    zeroes = disk.detect_zeroes if isinstance(disk.detect_zeroes, str) else "on" if disk.detect_zeroes else "off"
    limits = ((key, getattr(disk.throttle, key)) for key in LIMITS if disk.throttle)
    return ImagePlan(
        name=f"disk{index}",
        path=context.choice(context.image_path(disk), *path, disk.said_by),
        format=_format(context, index, disk),
        block_device=_block_device(context, disk),
        read_only=context.choice(not disk.writes, *path, disk.reads_by),
        discard=context.choice(disk.discard, *path, "discard"),
        cache=context.choice(disk.cache, *path, "cache"),
        aio=context.choice(disk.aio, *path, "aio"),
        detect_zeroes=context.choice(zeroes, *path, "detect_zeroes"),
        luks_key=context.choice_or_none(disk.luks_key, *path, "luks_key"),
        limits=tuple((key, context.choice(limit, *path, "throttle", key)) for key, limit in limits if limit),
        remedy=fetching(disk.image, disk.sha256) if disk.image and disk.is_fetched else context.correct("disks"),
        overlay=resolve_overlay(context, index, disk),
        folder=resolve_folder_disk(context, index, disk),
        stands_alone=disk.image is not None,
    )


def _format(context: Context, index: int, disk: Disk) -> Choice[str]:
    """The format that the image has. A guest whose qcow2 image is opened as raw destroys it with its first write."""
    path = ("disks", index)
    if disk.folder:
        return Choice("raw", rule("a CD-ROM image, made at the start"))
    facts = context.host.images.get(disk.source)
    # What a server calls a file promises nothing, once there is the file.
    said = disk.format or (None if facts and disk.is_fetched else disk.named_format)
    # LUKS is a raw image whose content QEMU, or the guest itself, decrypts.
    content = "raw" if said == "luks" else said
    if facts and content and content != facts.format:
        by, key = ("format", "format") if disk.format else ("name", disk.said_by)
        hint = "leave format out" if disk.format else f"say format: {facts.format}, or give it a name that fits"
        message = f"{disk.source} is a {facts.format} image by its content, and {said} by its {by}"
        context.refuse(message, *path, key, hint=hint)
    if disk.path and facts and disk.luks_key and not facts.luks:
        message = f"{disk.path} is no LUKS image, neither as a whole nor inside of qcow2"
        context.refuse(message, *path, "luks_key", hint="leave luks_key out, or make one with qemu-img create -f luks")
    if disk.path and facts and facts.luks and facts.format == "qcow2" and not disk.luks_key:
        context.refuse(f"{disk.path} is encrypted (LUKS in qcow2)", *path, "path", hint="name its key in luks_key")
    unseen = "qcow2" if disk.is_fetched else "raw"
    found = disk.format or (facts.format if facts else said or unseen)
    if disk.luks_key and found == "raw":
        return Choice("luks", context.why(*path, "luks_key"))
    if disk.format:
        return context.choice(disk.format, *path, "format")
    without_a_look = "by the file's name" if said or not disk.is_fetched else "as most; it is not fetched yet"
    return Choice(found, rule("by the image's content" if facts else without_a_look))


def _block_device(context: Context, disk: Disk) -> Choice[bool]:
    facts = context.host.images.get(disk.source)
    if facts:
        return Choice(facts.block_device, rule("by a look at it"))
    return Choice(not disk.folder and is_device(disk.source), rule("a path under /dev is a block device"))
