"""Disks: block devices and the controllers they hang on."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from sevlaunch.plan.context import Context
from sevlaunch.plan.option import Option, Parameter, rule
from sevlaunch.plan.virtio import virtio_parameters
from sevlaunch.profile.model import Disk

# cache -> (cache.direct, cache.no-flush, write-cache of the device), as QEMU's -drive documents it in qemu-options.hx.
_CACHE = {
    "writeback": ("off", "off", "on"),
    "none": ("on", "off", "on"),
    "writethrough": ("off", "off", "off"),
    "directsync": ("on", "off", "off"),
    "unsafe": ("off", "on", "on"),
}


class StoragePlan(Struct, frozen=True):
    """The options for all disks, and the files that have to be there."""

    options: tuple[Option, ...]
    files: tuple[str, ...]


def resolve_storage(context: Context) -> StoragePlan:
    """Disks for the profile."""
    disks = context.profile.disks
    options: list[Option] = []
    if any(disk.bus == "virtio-scsi" for disk in disks):
        options.append(
            Option(
                "-device",
                (
                    Parameter("", "virtio-scsi-pci", rule("controller of the virtio-scsi disks")),
                    Parameter("id", "scsi0", rule("name of the controller")),
                    *virtio_parameters(rule("every virtio device")),
                ),
            )
        )
    for index, disk in enumerate(disks):
        options.append(_backend(context, index, disk))
        options.append(_frontend(context, index, disk))
    return StoragePlan(tuple(options), tuple(disk.path for disk in disks))


def boot_index(context: Context, device: str) -> Iterator[Parameter]:
    """``bootindex=N`` for a device that stands in boot.order."""
    order = context.profile.boot.order
    if device in order:
        position = order.index(device)
        yield Parameter("bootindex", str(position + 1), context.why("boot", "order", position))


def _backend(context: Context, index: int, disk: Disk) -> Option:
    path = ("disks", index)
    block_device = disk.path.startswith("/dev/")
    direct, no_flush, _ = _CACHE[disk.cache]
    read_only = disk.read_only or disk.cdrom
    parameters = [
        context.from_profile("driver", disk.effective_format, *path, "format", default="by the file's name"),
        Parameter("node-name", f"disk{index}", rule("position in disks")),
        context.from_profile("read-only", read_only, *path, "cdrom" if disk.cdrom else "read_only"),
        context.from_profile("discard", "unmap" if disk.discard else "ignore", *path, "discard"),
        context.from_profile("cache.direct", direct, *path, "cache"),
        context.from_profile("cache.no-flush", no_flush, *path, "cache"),
        Parameter(
            "file.driver", "host_device" if block_device else "file", rule("a path under /dev is a block device")
        ),
        context.from_profile("file.filename", disk.path, *path, "path"),
    ]
    return Option("-blockdev", tuple(parameters))


def _frontend(context: Context, index: int, disk: Disk) -> Option:
    path = ("disks", index)
    scsi_kind = "cd" if disk.cdrom else "hd"
    driver = {
        "virtio-blk": "virtio-blk-pci",
        "virtio-scsi": f"scsi-{scsi_kind}",
        "sata": f"ide-{scsi_kind}",
        "ide": f"ide-{scsi_kind}",
    }[disk.bus]
    bus = {"virtio-scsi": "scsi0.0", "sata": f"ide.{index}"}.get(disk.bus)
    parameters = [
        context.from_profile("", driver, *path, "bus"),
        Parameter("id", f"disk{index}-device", rule("position in disks")),
        Parameter("drive", f"disk{index}", rule("its block device")),
    ]
    if bus:
        parameters.append(Parameter("bus", bus, rule("its controller")))
    if disk.serial:
        parameters.append(context.from_profile("serial", disk.serial, *path, "serial"))
    if not disk.cdrom:
        parameters.append(context.from_profile("write-cache", _CACHE[disk.cache][2], *path, "cache"))
    parameters += boot_index(context, f"disk{index}")
    if disk.bus == "virtio-blk":
        reason = context.why(*path, "iommu_platform", default="every virtio device")
        parameters += virtio_parameters(reason, dma_api=disk.iommu_platform)
    return Option("-device", tuple(parameters))
