"""The DMA API of virtio devices: ``<driver iommu='on'/>`` in libvirt, ``iommu_platform`` in a profile."""

from __future__ import annotations

from sevlaunch.libvirt.conversion import Conversion
from sevlaunch.libvirt.document import Element, Part
from sevlaunch.libvirt.outcomes import Key

_NEEDED = "an encrypted guest reaches its virtio devices through the DMA API only: on"
_MODERN = "a modern virtio device (1.0): a system from before that (Linux before 4.0) has no driver for it"
_ALWAYS = "sevlaunch has the DMA API always on here"


def import_dma_api(conversion: Conversion, device: Element, key: Key | None) -> None:
    """Account for a virtio device's ``iommu``; ``key`` is the profile's place for it, None where it is always on.

    libvirt's default is off, sevlaunch's is on, for an encrypted guest can't do without.
    """
    outcomes = conversion.outcomes
    part = device.child("driver").part("iommu")
    wanted = device.child("driver").get("iommu")
    if wanted == "on":
        outcomes.same(part, "iommu_platform is on")
    elif conversion.encrypted:
        outcomes.note(part or Part(device), f"no iommu='on': {_NEEDED}" if part is None else _NEEDED)
    elif key is not None:
        reason = "" if part else "libvirt's default without driver iommu='on'"
        outcomes.carry((*key, "iommu_platform"), False, part or Part(device), reason=reason)
    else:
        outcomes.note(part, _ALWAYS)


def note_modern(conversion: Conversion, device: Element, model: str | None) -> None:
    """Tell of a virtio device that the guest could drive by the protocol before 1.0, which sevlaunch's don't have.

    libvirt's devices of model virtio have it where they are no PCIe devices, on the older machines: its
    docs/formatdomain.rst.
    """
    if model == "virtio-transitional" or (model in ("virtio", None) and conversion.root_bus == "pci"):
        conversion.outcomes.note(Part(device), _MODERN)
