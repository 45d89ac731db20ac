"""Disks: block devices, and where they are."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from sevlaunch.plan.addresses import Address
from sevlaunch.plan.boot import boot_index
from sevlaunch.plan.context import Context
from sevlaunch.plan.needs import NeededDevice, NeededFile, Needs, is_device, merged
from sevlaunch.plan.option import Choice, Option, Parameter, rule
from sevlaunch.plan.part import Part, virtio_parameters
from sevlaunch.plan.seats import IDE_UNITS, SATA_PORTS, SCSI_TARGETS, seats
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

    ``place``: where it is on its bus. ``dma_api``: for a disk that is a virtio device itself. ``remedy``: what to do
    where its image is missing.
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
    place: tuple[Parameter, ...]
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
        parameters = [
            Parameter("", driver, self.bus.reason),
            Parameter("id", f"{self.name}-device", rule("position in disks")),
            Parameter("drive", self.name, rule("its block device")),
        ]
        if self.serial:
            parameters.append(self.serial.parameter("serial"))
        if not self.cdrom:
            parameters.append(Parameter("write-cache", _CACHE[self.cache.value].write_cache, self.cache.reason))
        if self.boot_index:
            parameters.append(self.boot_index.parameter("bootindex"))
        parameters += self.place
        if self.bus.value == "virtio-blk":
            parameters += virtio_parameters(self.dma_api)
        return Option("-device", tuple(parameters))


class StoragePlan(Part, frozen=True, kw_only=True):
    """All disks, and the controllers that the machine does not have by itself."""

    disks: tuple[DiskPlan, ...]
    scsi: Address | None
    sata: tuple[Address, ...]

    @property
    def needs(self) -> Needs:
        """The images."""
        return merged(disk.needs for disk in self.disks)

    def options(self) -> Iterator[Option]:
        """The controllers, then each disk with what is behind it."""
        for number, address in enumerate(self.sata):
            why = rule("controller of the SATA disks")
            identity = (Parameter("", "ich9-ahci", why), Parameter("id", f"sata{number}", why))
            yield Option("-device", (*identity, *address.parameters()))
        if self.scsi:
            yield Option(
                "-device",
                (
                    Parameter("", "virtio-scsi-pci", rule("controller of the virtio-scsi disks")),
                    Parameter("id", "scsi0", rule("name of the controller")),
                    *self.scsi.parameters(),
                    *virtio_parameters(),
                ),
            )
        for disk in self.disks:
            yield disk.backend()
            yield disk.frontend()


def resolve_storage(context: Context) -> StoragePlan:
    """Disks for the profile."""
    disks = context.profile.disks
    places = seats(disks)
    last_sata = max((place for disk, place in zip(disks, places, strict=True) if disk.bus == "sata"), default=-1)
    added = range(last_sata // SATA_PORTS + 1 - _own_sata(context))
    return StoragePlan(
        scsi=context.address("scsi") if any(disk.bus == "virtio-scsi" for disk in disks) else None,
        sata=tuple(context.address("sata", number, "disks", instead="use bus: virtio-scsi") for number in added),
        disks=tuple(_disk(context, index, disk, places[index]) for index, disk in enumerate(disks)),
    )


def _own_sata(context: Context) -> int:
    """How many SATA controllers the machine has by itself: ICH9 has one, PIIX3 none."""
    return 1 if context.root_bus == "pcie.0" else 0


def _place(context: Context, index: int, disk: Disk, seat: int) -> Iterator[Parameter]:
    """The place of a disk, the ``seat``-th on its bus."""
    why = rule("each disk has its place on the bus, and CD-ROMs the last ones")
    if disk.bus == "virtio-blk":
        yield from context.address("disk", seat, "disks", index, instead="use bus: virtio-scsi").parameters()
    elif disk.bus == "virtio-scsi":
        if seat >= SCSI_TARGETS:
            context.refuse(f"a controller has {SCSI_TARGETS} virtio-scsi disks at most", "disks", index)
        yield Parameter("bus", "scsi0.0", why)
        yield Parameter("scsi-id", str(seat), why)
    elif disk.bus == "sata":
        controller, port = divmod(seat, SATA_PORTS)
        added = controller - _own_sata(context)
        yield Parameter("bus", f"ide.{port}" if added < 0 else f"sata{added}.{port}", why)
    else:
        if seat >= IDE_UNITS:
            message = f"the machine's IDE controller takes {IDE_UNITS} disks, and this is one more"
            context.refuse(message, "disks", index, "bus", hint="use bus: sata, virtio-scsi or virtio-blk")
        channel, unit = divmod(seat, 2)
        yield Parameter("bus", f"ide.{channel}", why)
        yield Parameter("unit", str(unit), why)


def _disk(context: Context, index: int, disk: Disk, seat: int) -> DiskPlan:
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
        place=tuple(_place(context, index, disk, seat)),
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
