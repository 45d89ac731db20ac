"""Small virtio devices: random numbers, the balloon, vsock."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from sevlaunch.plan.addresses import Address
from sevlaunch.plan.context import Context
from sevlaunch.plan.needs import NeededDevice, Needs, device_or_file
from sevlaunch.plan.option import Choice, Option, Parameter, Reason, rule
from sevlaunch.plan.part import Part, virtio_parameters
from sevlaunch.remedies import MODULES

VHOST_VSOCK = "/dev/vhost-vsock"


class RngPlan(Part, frozen=True, kw_only=True):
    """``source``: where the random numbers come from."""

    wanted: Reason
    source: Choice[str]
    address: Address
    dma_api: Choice[bool]

    @property
    def needs(self) -> Needs:
        """The source is read."""
        why = "The guest's random numbers come from it."
        remedy = "name another one in rng.source"
        return device_or_file(self.source.value, "source of random numbers", why, remedy, write=False)

    def options(self) -> Iterator[Option]:
        """The source and the device."""
        identity = Parameter("id", "rng0", rule("name of the source"))
        yield Option("-object", (Parameter("", "rng-random", self.wanted), identity, self.source.parameter("filename")))
        yield Option(
            "-device",
            (
                Parameter("", "virtio-rng-pci", self.wanted),
                Parameter("rng", "rng0", rule("its source")),
                *self.address.parameters(),
                *virtio_parameters(self.dma_api),
            ),
        )


class BalloonPlan(Part, frozen=True, kw_only=True):
    """A memory balloon."""

    wanted: Reason
    address: Address
    dma_api: Choice[bool]

    def options(self) -> Iterator[Option]:
        """The device."""
        driver = Parameter("", "virtio-balloon-pci", self.wanted)
        yield Option("-device", (driver, *self.address.parameters(), *virtio_parameters(self.dma_api)))


class VsockPlan(Part, frozen=True, kw_only=True):
    """``cid``: the guest's address."""

    wanted: Reason
    cid: Choice[int]
    address: Address
    dma_api: Choice[bool]

    @property
    def needs(self) -> Needs:
        """The kernel moves the packets; sevlaunch connects to the guest to see that it is ready."""
        return Needs(
            devices=(NeededDevice(VHOST_VSOCK, "The guest talks to the host through vsock.", MODULES[VHOST_VSOCK]),),
            address_families=("AF_VSOCK",),
        )

    def options(self) -> Iterator[Option]:
        """The device."""
        driver = Parameter("", "vhost-vsock-pci", self.wanted)
        cid = self.cid.parameter("guest-cid")
        yield Option("-device", (driver, cid, *self.address.parameters(), *virtio_parameters(self.dma_api)))


def resolve_rng(context: Context) -> Iterator[RngPlan]:
    """The source of random numbers, unless it is not wanted."""
    rng = context.profile.rng
    if rng is not None:
        yield RngPlan(
            wanted=context.why("rng"),
            source=context.choice(rng.source, "rng", "source"),
            address=context.address("rng"),
            dma_api=context.dma_api(rng.iommu_platform, "rng", "iommu_platform"),
        )


def resolve_balloon(context: Context) -> Iterator[BalloonPlan]:
    """The balloon, where it is asked for."""
    balloon = context.profile.balloon
    if balloon is None:
        return
    dma_api = context.dma_api(balloon.iommu_platform, "balloon", "iommu_platform")
    if dma_api.value:
        # Linux' drivers/virtio/virtio_balloon.c clears VIRTIO_F_ACCESS_PLATFORM, and QEMU then refuses the features.
        context.warn("Linux guests don't use a balloon behind the DMA API: it is there, and does nothing")
    yield BalloonPlan(
        wanted=context.why("balloon"),
        address=context.address("balloon"),
        dma_api=dma_api,
    )


def resolve_vsock(context: Context) -> Iterator[VsockPlan]:
    """The vsock device, where it is asked for."""
    wanted = context.profile.vsock
    if wanted is None:
        return
    context.need_device("vhost-vsock-pci", "vsock")
    derived = Choice(derived_cid(context.profile.name), rule("derived from the guest's name"))
    yield VsockPlan(
        wanted=context.why("vsock"),
        cid=derived if wanted == "auto" else context.choice(int(wanted), "vsock"),
        address=context.address("vsock"),
        dma_api=context.dma_api(),
    )


def derived_cid(name: str) -> int:
    """A vsock context ID that is always the same for a guest's name, away from the small ones people choose."""
    return 0x10000 | int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") & 0x7FFFFFFF
