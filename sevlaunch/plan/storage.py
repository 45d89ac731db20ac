"""Disks: block devices and the controllers they hang on."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from sevlaunch.plan.boot import boot_index
from sevlaunch.plan.context import Context
from sevlaunch.plan.needs import NeededDevice, NeededFile, Needs, is_device, merged
from sevlaunch.plan.option import Choice, Option, Parameter, rule
from sevlaunch.plan.part import Part, virtio_parameters
from sevlaunch.profile.model import Bus, Cache, Disk


class _CacheMode(Struct, frozen=True):
    direct: str
    no_flush: str
    write_cache: str


# As QEMU's -drive documents it in qemu-options.hx.
_CACHE: dict[Cache, _CacheMode] = {
    "writeback": _CacheMode("off", "off", "on"),
    "none": _CacheMode("on", "off", "on"),
    "writethrough": _CacheMode("off", "off", "off"),
    "directsync": _CacheMode("on", "off", "off"),
    "unsafe": _CacheMode("off", "on", "on"),
}


class DiskPlan(Struct, frozen=True, kw_only=True):
    """A disk or CD-ROM, the ``index``-th of the guest.

    ``dma_api``: for a disk that is a virtio device itself. ``remedy``: what to do where its image is missing.
    """

    index: int
    path: Choice[str]
    format: Choice[str]
    block_device: Choice[bool]
    bus: Choice[Bus]
    cdrom: bool
    read_only: Choice[bool]
    discard: Choice[bool]
    cache: Choice[Cache]
    serial: Choice[str] | None
    boot_index: Choice[int] | None
    dma_api: Choice[bool]
    remedy: str

    @property
    def name(self) -> str:
        """The name in boot.order, and of QEMU's block device."""
        return f"disk{self.index}"

    @property
    def needs(self) -> Needs:
        """The image."""
        why = f"It is the guest's {self.name}."
        path, write = self.path.value, not self.read_only.value
        if self.block_device.value:
            return Needs(devices=(NeededDevice(path, why, self.remedy, write=write, what="disk"),))
        image_format = self.format.value
        instead = "set read_only: true"
        file = NeededFile(path, "disk", self.remedy, write=write, instead=instead, image_format=image_format)
        return Needs(files=(file,))

    def backend(self) -> Option:
        """The block device."""
        cache = _CACHE[self.cache.value]
        return Option(
            "-blockdev",
            (
                self.format.parameter("driver"),
                Parameter("node-name", self.name, rule("position in disks")),
                self.read_only.parameter("read-only"),
                Parameter("discard", "unmap" if self.discard.value else "ignore", self.discard.reason),
                Parameter("cache.direct", cache.direct, self.cache.reason),
                Parameter("cache.no-flush", cache.no_flush, self.cache.reason),
                Parameter(
                    "file.driver", "host_device" if self.block_device.value else "file", self.block_device.reason
                ),
                self.path.parameter("file.filename"),
            ),
        )

    def frontend(self) -> Option:
        """The disk that the guest sees."""
        kind = "cd" if self.cdrom else "hd"
        driver = {"virtio-blk": "virtio-blk-pci", "virtio-scsi": f"scsi-{kind}"}.get(self.bus.value, f"ide-{kind}")
        bus = {"virtio-scsi": "scsi0.0", "sata": f"ide.{self.index}"}.get(self.bus.value)
        parameters = [
            Parameter("", driver, self.bus.reason),
            Parameter("id", f"{self.name}-device", rule("position in disks")),
            Parameter("drive", self.name, rule("its block device")),
        ]
        if bus:
            parameters.append(Parameter("bus", bus, rule("its controller")))
        if self.serial:
            parameters.append(self.serial.parameter("serial"))
        if not self.cdrom:
            parameters.append(Parameter("write-cache", _CACHE[self.cache.value].write_cache, self.cache.reason))
        if self.boot_index:
            parameters.append(self.boot_index.parameter("bootindex"))
        if self.bus.value == "virtio-blk":
            parameters += virtio_parameters(self.dma_api)
        return Option("-device", tuple(parameters))


class StoragePlan(Part, frozen=True, kw_only=True):
    """All disks, and with them their controllers."""

    disks: tuple[DiskPlan, ...]

    @property
    def needs(self) -> Needs:
        """The images."""
        return merged(disk.needs for disk in self.disks)

    def options(self) -> Iterator[Option]:
        """The controllers, then each disk with what is behind it."""
        if any(disk.bus.value == "virtio-scsi" for disk in self.disks):
            yield Option(
                "-device",
                (
                    Parameter("", "virtio-scsi-pci", rule("controller of the virtio-scsi disks")),
                    Parameter("id", "scsi0", rule("name of the controller")),
                    *virtio_parameters(),
                ),
            )
        for disk in self.disks:
            yield disk.backend()
            yield disk.frontend()


def resolve_storage(context: Context) -> StoragePlan:
    """Disks for the profile."""
    return StoragePlan(disks=tuple(_disk(context, index, disk) for index, disk in enumerate(context.profile.disks)))


def _disk(context: Context, index: int, disk: Disk) -> DiskPlan:
    path = ("disks", index)
    read_only = disk.read_only or disk.cdrom
    return DiskPlan(
        index=index,
        path=context.choice(disk.path, *path, "path"),
        format=_format(context, index, disk),
        block_device=_block_device(context, disk),
        bus=context.choice(disk.bus, *path, "bus"),
        cdrom=disk.cdrom,
        read_only=context.choice(read_only, *path, "cdrom" if disk.cdrom else "read_only"),
        discard=context.choice(disk.discard, *path, "discard"),
        cache=context.choice(disk.cache, *path, "cache"),
        serial=context.choice_or_none(disk.serial, *path, "serial"),
        boot_index=boot_index(context, f"disk{index}"),
        dma_api=context.choice(disk.iommu_platform, *path, "iommu_platform", default="every virtio device"),
        remedy=context.correct("disks"),
    )


def _format(context: Context, index: int, disk: Disk) -> Choice[str]:
    """The format that the image has. A guest whose qcow2 image is opened as raw destroys it with its first write."""
    path = ("disks", index)
    facts = context.host.images.get(disk.path)
    said = disk.format or disk.named_format
    if facts and said and said != facts.format:
        by, key = ("format", "format") if disk.format else ("name", "path")
        hint = "leave format out" if disk.format else f"say format: {facts.format}, or give it a name that fits"
        message = f"{disk.path} is a {facts.format} image by its content, and {said} by its {by}"
        context.refuse(message, *path, key, hint=hint)
    if disk.format:
        return context.choice(disk.format, *path, "format")
    if facts:
        return Choice(facts.format, rule("by the image's content"))
    return Choice(said or "raw", rule("by the file's name"))


def _block_device(context: Context, disk: Disk) -> Choice[bool]:
    facts = context.host.images.get(disk.path)
    if facts:
        return Choice(facts.block_device, rule("by a look at it"))
    return Choice(is_device(disk.path), rule("a path under /dev is a block device"))
