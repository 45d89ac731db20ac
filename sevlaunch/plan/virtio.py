"""What every virtio device has in common."""

from __future__ import annotations

from collections.abc import Iterator

from sevlaunch.plan.option import Parameter, Reason, rule


def virtio_parameters(reason: Reason, *, dma_api: bool = True) -> Iterator[Parameter]:
    """A modern device behind the DMA API, so that an encrypted guest shares only what it means to share.

    ``iommu_platform`` needs a modern device; ``reason`` is for it.
    """
    yield Parameter("disable-legacy", "on", rule("iommu_platform needs a modern virtio device"))
    yield Parameter("iommu_platform", "on" if dma_api else "off", reason)
