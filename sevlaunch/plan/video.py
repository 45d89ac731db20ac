"""The graphics card."""

from __future__ import annotations

from collections.abc import Iterator

from sevlaunch.plan.addresses import Address
from sevlaunch.plan.context import Context
from sevlaunch.plan.option import Choice, Option, Parameter, rule
from sevlaunch.plan.part import Part, virtio_parameters

# The PCI device that carries a type of video.
VIDEO_DEVICES = {"std": "VGA", "qxl": "qxl-vga", "virtio": "virtio-vga"}


class VideoPlan(Part, frozen=True, kw_only=True):
    """``ram``, ``vram`` and ``vgamem`` in bytes; None: as the device has it."""

    type: Choice[str]
    ram: Choice[int] | None
    vram: Choice[int] | None
    vgamem: Choice[int] | None
    heads: Choice[int]
    address: Address
    dma_api: Choice[bool]

    def options(self) -> Iterator[Option]:
        """The device."""
        driver = Parameter("", VIDEO_DEVICES[self.type.value], self.type.reason)
        identity = Parameter("id", "video0", rule("name of the device"))
        yield Option("-device", (driver, identity, *self.address.parameters(), *self._sizes()))

    def _sizes(self) -> Iterator[Parameter]:
        kind = self.type.value
        if kind == "qxl":
            if self.ram:
                yield self.ram.parameter("ram_size")
            if self.vram:
                yield self.vram.parameter("vram_size")
            if self.vgamem:
                yield _in_mebibytes("vgamem_mb", self.vgamem)
        elif kind == "std" and self.vram:
            yield _in_mebibytes("vgamem_mb", self.vram)
        if kind in ("qxl", "virtio"):
            yield self.heads.parameter("max_outputs")
        if kind == "virtio":
            yield from virtio_parameters(self.dma_api)


def resolve_video(context: Context) -> VideoPlan:
    """The graphics card of a profile that has one."""
    video = context.profile.video
    context.need_device(VIDEO_DEVICES[video.type], f"video: {video.type}")
    return VideoPlan(
        type=context.choice(video.type, "video", "type"),
        ram=context.choice_or_none(video.ram, "video", "ram"),
        vram=context.choice_or_none(video.vram, "video", "vram"),
        vgamem=context.choice_or_none(video.vgamem, "video", "vgamem"),
        heads=context.choice(video.heads, "video", "heads"),
        address=context.address("video"),
        dma_api=context.dma_api(),
    )


def _in_mebibytes(key: str, size: Choice[int]) -> Parameter:
    return Parameter(key, str(size.value >> 20), size.reason)
