"""The DMA API of virtio devices: ``<driver iommu='on'/>`` in libvirt, ``iommu_platform`` in a profile."""

from __future__ import annotations

from sevlaunch.libvirt.conversion import Conversion
from sevlaunch.libvirt.document import Element, Part
from sevlaunch.libvirt.outcomes import Key

_KEY = "iommu_platform"
_NEEDED = "an encrypted guest reaches its virtio devices through the DMA API only: on"
_MODERN = "a modern virtio device (1.0): a system from before that (Linux before 4.0) has no driver for it"
_WITH_THE_REST = "it has the DMA API where any device of the guest has"
# Devices that may be virtio's, and have iommu then.
_DEVICES = ("disk", "interface", "controller", "rng", "memballoon", "video", "vsock", "input", "filesystem")


def import_dma_api(conversion: Conversion, device: Element, key: Key | None) -> None:
    """Account for a virtio device's ``iommu``; ``key`` is the profile's place for it, None where it has none.

    libvirt's default is off, sevlaunch's is on, for an encrypted guest can't do without. Where no device has it, it is
    off for the whole guest.
    """
    outcomes = conversion.outcomes
    part = device.child("driver").part("iommu")
    wanted = device.child("driver").get("iommu")
    if wanted == "on":
        outcomes.same(part, "iommu_platform is on")
    elif conversion.encrypted:
        outcomes.note(part or Part(device), f"no iommu='on': {_NEEDED}" if part is None else _NEEDED)
    else:
        reason = "" if part else "libvirt's default without driver iommu='on'"
        if not _is_anywhere_on(conversion):
            if (_KEY,) not in outcomes.values:
                outcomes.carry((_KEY,), False, part or Part(device), reason=reason)
            else:
                outcomes.same(part, "iommu_platform is off for the whole guest")
        elif key is not None:
            outcomes.carry((*key, _KEY), False, part or Part(device), reason=reason)
        else:
            outcomes.note(part, _WITH_THE_REST)


def _is_anywhere_on(conversion: Conversion) -> bool:
    devices = (device for name in _DEVICES for device in conversion.devices.all(name))
    return any(device.child("driver").get("iommu") == "on" for device in devices)


def note_modern(conversion: Conversion, device: Element, model: str | None) -> None:
    """Tell of a virtio device that the guest could drive by the protocol before 1.0, which sevlaunch's don't have.

    libvirt's devices of model virtio have it where they are no PCIe devices, on the older machines: its
    docs/formatdomain.rst.
    """
    if model == "virtio-transitional" or (model in ("virtio", None) and conversion.root_bus == "pci"):
        conversion.outcomes.note(Part(device), _MODERN)
