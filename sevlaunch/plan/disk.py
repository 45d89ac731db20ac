"""A disk as the guest sees it, and the controller of those that hang on one."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from sevlaunch.plan.addresses import Address
from sevlaunch.plan.disk_image import CACHE, ImagePlan
from sevlaunch.plan.option import Choice, Option, Parameter, rule
from sevlaunch.plan.part import Part, virtio_parameters
from sevlaunch.profile.io_threads import SCSI_CONTROLLER
from sevlaunch.profile.model import Bus


class ScsiPlan(Part, frozen=True, kw_only=True):
    """The controller of all virtio-scsi disks."""

    address: Address
    iothread: Choice[str] | None
    queues: Choice[int] | None
    dma_api: Choice[bool]

    def options(self) -> Iterator[Option]:
        """The device."""
        parameters = [
            Parameter("", "virtio-scsi-pci", rule("controller of the virtio-scsi disks")),
            Parameter("id", SCSI_CONTROLLER, rule("name of the controller")),
            *self.address.parameters(),
        ]
        if self.iothread:
            parameters.append(self.iothread.parameter("iothread"))
        if self.queues:
            parameters.append(self.queues.parameter("num_queues"))
        yield Option("-device", (*parameters, *virtio_parameters(self.dma_api)))


class DiskPlan(Struct, frozen=True, kw_only=True):
    """A disk or CD-ROM, the ``index``-th of the guest.

    ``place``: where it is on its bus. ``block_size`` in bytes. ``iothread``, ``queues`` and ``dma_api`` are those of a
    disk that is a device of its own; all virtio-scsi disks have those of their controller.
    """

    index: int
    image: ImagePlan
    bus: Choice[Bus]
    cdrom: bool
    serial: Choice[str] | None
    block_size: Choice[int] | None
    boot_index: Choice[int] | None
    place: tuple[Parameter, ...]
    iothread: Choice[str] | None
    queues: Choice[int] | None
    dma_api: Choice[bool]

    @property
    def name(self) -> str:
        """The name in boot.order, and of QEMU's block device."""
        return self.image.name

    def frontend(self) -> Option:
        """The device."""
        kind = "cd" if self.cdrom else "hd"
        drivers = {"virtio-blk": "virtio-blk-pci", "virtio-scsi": f"scsi-{kind}", "nvme": "nvme"}
        parameters = [
            Parameter("", drivers.get(self.bus.value, f"ide-{kind}"), self.bus.reason),
            Parameter("id", f"{self.name}-device", rule("position in disks")),
            Parameter("drive", self.image.node, rule("its block device")),
        ]
        if self.serial:
            parameters.append(self.serial.parameter("serial"))
        if not self.cdrom:
            write_cache = CACHE[self.image.cache.value].write_cache
            parameters.append(Parameter("write-cache", write_cache, self.image.cache.reason))
        if self.block_size:
            physical = Choice(self.block_size.value, rule("not smaller than the logical one"))
            parameters.append(self.block_size.parameter("logical_block_size"))
            parameters.append(physical.parameter("physical_block_size"))
        if self.boot_index:
            parameters.append(self.boot_index.parameter("bootindex"))
        parameters += self.place
        if self.bus.value == "nvme" and self.queues:
            parameters.append(self.queues.parameter("max_ioqpairs"))
        if self.bus.value == "virtio-blk":
            if self.iothread:
                parameters.append(self.iothread.parameter("iothread"))
            if self.queues:
                parameters.append(self.queues.parameter("num-queues"))
            parameters += virtio_parameters(self.dma_api)
        return Option("-device", tuple(parameters))
