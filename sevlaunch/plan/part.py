"""What all parts of a plan have in common, and what all virtio devices have."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from sevlaunch.plan.needs import Needs
from sevlaunch.plan.option import Choice, Option, Parameter, rule


class PrivateFile(Struct, frozen=True):
    """A file in the guest's folder that is written before the start, and that QEMU reads.

    ``secret``: what is in it appears nowhere else. ``source``: the file that it is a copy of, instead of ``text``.
    """

    path: str
    text: str
    secret: bool = False
    source: str = ""


class Part(Struct, frozen=True, kw_only=True):
    """The choices for one part of a guest, each with its reason, and what follows from them.

    A part holds no options: whoever wants to know something of it asks its fields.
    """

    @property
    def needs(self) -> Needs:
        """What the part asks of the host."""
        return Needs()

    @property
    def files(self) -> tuple[PrivateFile, ...]:
        """What is written for QEMU before the start."""
        return ()

    def machine_properties(self) -> Iterator[Parameter]:
        """What the part adds to -machine."""
        yield from ()

    def options(self) -> Iterator[Option]:
        """The options of QEMU that make the part."""
        raise NotImplementedError


def virtio_parameters(dma_api: Choice[bool]) -> Iterator[Parameter]:
    """A modern device; behind the DMA API, an encrypted guest shares with it only what it means to share."""
    yield Parameter("disable-legacy", "on", rule("iommu_platform needs a modern virtio device"))
    yield dma_api.parameter("iommu_platform")
