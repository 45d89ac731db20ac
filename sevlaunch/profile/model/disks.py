"""Disks and CD-ROMs."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from sevlaunch.image_reference import SHA256, entry_of
from sevlaunch.profile.fields import AbsolutePath, DiskSerial, ImagePath, ImageReference, Size, matching
from sevlaunch.profile.model.base import Model

Bus = Literal["virtio-blk", "virtio-scsi", "nvme", "sata", "ide"]
Cache = Literal["writeback", "none", "writethrough", "directsync", "unsafe"]
# QEMU's block drivers for the formats of images.
ImageFormat = Literal["raw", "qcow2", "vmdk", "vhdx", "vdi", "vpc", "luks"]
# Formats of an image that is never written: those that can't name other files without our seeing it.
BASE_FORMATS: tuple[ImageFormat, ...] = ("raw", "qcow2")
Overlay = Literal["keep", "ephemeral"]
# The word for an I/O thread that serves one disk, where others are names.
OWN_THREAD = "own"
# QEMU's include/qemu/throttle.h, THROTTLE_VALUE_MAX.
_MOST_A_SECOND = 10**15
# QEMU's hw/scsi/virtio-scsi.c takes the fewest of those that have queues.
_MOST_QUEUES = 1022
_Operations = Annotated[int, Meta(ge=1, le=_MOST_A_SECOND)] | None
_FORMAT_OF_NAME: dict[str, ImageFormat] = {
    "raw": "raw",
    "iso": "raw",
    "qcow2": "qcow2",
    "vmdk": "vmdk",
    "vhdx": "vhdx",
    "vdi": "vdi",
    "vhd": "vpc",
}


class Throttle(Model, frozen=True, kw_only=True):
    """What a disk may do in a second: operations, and bytes."""

    iops: Annotated[_Operations, Meta(description="reads and writes together")] = None
    iops_read: _Operations = None
    iops_write: _Operations = None
    bytes: Annotated[Size | None, Meta(description="bytes read and written together, such as 50M")] = None
    bytes_read: Size | None = None
    bytes_write: Size | None = None


class Disk(Model, frozen=True, kw_only=True):
    """A disk or CD-ROM."""

    one_of = ("path", "image", "folder")

    path: Annotated[ImagePath | None, Meta(description="image file or block device, which the guest writes to")] = None
    image: Annotated[
        ImageReference | None,
        Meta(
            description="image that is never written, such as a cloud image: a file, a name of `sevlaunch image ls "
            "--known` (a file without an ending is ./NAME), or a URL; what the guest writes: see overlay"
        ),
    ] = None
    sha256: (
        Annotated[
            str,
            matching(
                SHA256, "what an image that is fetched has to be; of a URL required", wanted="64 hexadecimal digits"
            ),
        ]
        | None
    ) = None
    overlay: Annotated[
        Overlay | None,
        Meta(
            description="where goes what is written to a disk of an image; keep (default): into a file that is kept "
            "for the guest's next start; ephemeral: gone with the guest"
        ),
    ] = None
    folder: Annotated[
        AbsolutePath | None,
        Meta(description="folder that a read-only disk is made of at each start, ISO 9660 with Rock Ridge"),
    ] = None
    label: (
        Annotated[
            str,
            matching(
                r"[A-Za-z0-9_-]{1,32}",
                "label of the disk of a folder, by which the guest finds it; default: the folder's name",
                wanted="1 to 32 letters, digits, - and _",
            ),
        ]
        | None
    ) = None
    size: Annotated[
        Size | None, Meta(description="size of a disk of an image, such as 20G; default: that of the image")
    ] = None
    format: Annotated[ImageFormat | None, Meta(description="default: what stands in the image")] = None
    bus: Bus = "virtio-blk"
    read_only: bool = False
    cdrom: bool = False
    serial: Annotated[DiskSerial | None, Meta(description="serial number that the guest sees")] = None
    cache: Cache = "writeback"
    discard: Annotated[bool, Meta(description="pass the guest's discards on to the image")] = True
    detect_zeroes: Annotated[
        bool | Literal["unmap"], Meta(description="write no blocks of zeros; unmap: give their place back")
    ] = False
    aio: Annotated[
        Literal["threads", "native", "io_uring"],
        Meta(description="how the host reads and writes; native takes cache: none"),
    ] = "threads"
    iothread: (
        Annotated[
            str,
            matching(
                r"[A-Za-z][A-Za-z0-9_-]{0,31}",
                "own: a thread of its own for the disk's I/O; another name: the thread that all disks with it share",
                wanted="own, or a name of letters, digits, - and _",
            ),
        ]
        | None
    ) = None
    queues: Annotated[
        Annotated[int, Meta(ge=1, le=_MOST_QUEUES)] | None,
        Meta(description="queues of the disk, or of the controller of all virtio-scsi disks; default: QEMU's"),
    ] = None
    logical_block_size: Annotated[
        Size | None, Meta(description="smallest block that the guest writes, such as 4K; default: 512 bytes")
    ] = None
    throttle: Throttle | None = None
    luks_key: Annotated[
        AbsolutePath | None, Meta(description="file with the passphrase of a LUKS image, and nothing else in it")
    ] = None
    slot: Annotated[
        Annotated[int, Meta(ge=0, le=255)] | None,
        Meta(description="place among the disks of its bus, from 0; default: as it stands in the list"),
    ] = None
    iommu_platform: Annotated[
        bool | None, Meta(description="DMA API of a virtio-blk disk; default: that of the guest")
    ] = None

    @property
    def named_format(self) -> ImageFormat | None:
        """The format that the file's name promises; None where it promises none (``.img`` may be any)."""
        return _FORMAT_OF_NAME.get((self.path or self.image or "").rpartition(".")[2].lower())

    @property
    def is_fetched(self) -> bool:
        """Whether its image is fetched: it has a name of the catalogue, or a URL."""
        return bool(self.image) and not str(self.image).startswith("/")

    @property
    def source(self) -> str:
        """The file, block device or folder with the disk's content; of an image that is fetched, its cache's entry."""
        if self.image and self.is_fetched:
            return entry_of(self.image, self.sha256)
        return self.path or self.image or self.folder or ""

    @property
    def writes(self) -> bool:
        """Whether the guest may write to the disk."""
        return not (self.read_only or self.cdrom or self.folder)

    @property
    def said_by(self) -> str:
        """The key that says where its content is."""
        return "path" if self.path else "image" if self.image else "folder"

    @property
    def reads_by(self) -> str:
        """The key that says that nothing is written to it."""
        return "cdrom" if self.cdrom else "read_only" if self.read_only else "folder"

    @property
    def writes_source(self) -> bool:
        """Whether what the guest writes goes there."""
        return bool(self.path) and self.writes

    @property
    def writes_overlay(self) -> Overlay | None:
        """What becomes of what the guest writes where that is not in the disk's own image; None: it is there."""
        return (self.overlay or "keep") if self.image and self.writes else None
