"""Rules about the DMA API of virtio devices, ``iommu_platform``: for the whole guest, or for one device."""

from __future__ import annotations

from collections.abc import Iterator

from sevlaunch.profile.model import Profile
from sevlaunch.profile.positions import KeyPath
from sevlaunch.profile.violation import Violation

_KEY = "iommu_platform"


def check_dma_api(profile: Profile) -> Iterator[Violation]:
    """What an encrypted guest can't have off, and where the key would do nothing."""
    if profile.security.encrypted:
        reason = "a virtio device of an encrypted guest needs the DMA API: leave iommu_platform on"
        if not profile.iommu_platform:
            yield Violation((_KEY,), reason)
        yield from (Violation((*path, _KEY), reason) for path, value in _devices(profile) if value is False)
    for index, disk in enumerate(profile.disks):
        if disk.iommu_platform is not None and disk.bus != "virtio-blk":
            owner = "of the controller of all virtio-scsi disks" if disk.bus == "virtio-scsi" else "for virtio devices"
            yield Violation(
                ("disks", index, _KEY),
                f"iommu_platform is {owner}, and not of a disk with bus {disk.bus}: leave it out, or set that of the "
                "whole guest (iommu_platform at the top)",
                (("disks", index, "bus"),),
            )


def _devices(profile: Profile) -> Iterator[tuple[KeyPath, bool | None]]:
    """Each device that has a key of its own, and what it says."""
    for index, disk in enumerate(profile.disks):
        yield ("disks", index), disk.iommu_platform
    for index, network in enumerate(profile.networks):
        yield ("networks", index), network.iommu_platform
    if profile.rng:
        yield ("rng",), profile.rng.iommu_platform
    if profile.balloon:
        yield ("balloon",), profile.balloon.iommu_platform
