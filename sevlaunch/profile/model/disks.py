"""Disks and CD-ROMs."""

# No postponed annotations: profile.validation looks at them, and to evaluate them takes longer than all else there.
from typing import Annotated, Literal

from msgspec import Meta

from sevlaunch.profile.fields import DiskSerial, ImagePath
from sevlaunch.profile.model.base import Model

Bus = Literal["virtio-blk", "virtio-scsi", "sata", "ide"]
Cache = Literal["writeback", "none", "writethrough", "directsync", "unsafe"]
# QEMU's block drivers for the formats of images.
ImageFormat = Literal["raw", "qcow2", "vmdk", "vhdx", "vdi", "vpc"]
_FORMAT_OF_NAME: dict[str, ImageFormat] = {
    "raw": "raw",
    "iso": "raw",
    "qcow2": "qcow2",
    "vmdk": "vmdk",
    "vhdx": "vhdx",
    "vdi": "vdi",
    "vhd": "vpc",
}


class Disk(Model, frozen=True, kw_only=True):
    """A disk or CD-ROM."""

    path: Annotated[ImagePath, Meta(description="image file or block device")]
    format: Annotated[ImageFormat | None, Meta(description="default: what stands in the image")] = None
    bus: Bus = "virtio-blk"
    read_only: bool = False
    cdrom: bool = False
    serial: Annotated[DiskSerial | None, Meta(description="serial number that the guest sees")] = None
    cache: Cache = "writeback"
    discard: Annotated[bool, Meta(description="pass the guest's discards on to the image")] = True
    iommu_platform: Annotated[bool, Meta(description="DMA API; can't be off in an encrypted guest")] = True

    @property
    def named_format(self) -> ImageFormat | None:
        """The format that the file's name promises; None where it promises none (``.img`` may be any)."""
        return _FORMAT_OF_NAME.get(self.path.rpartition(".")[2].lower())
