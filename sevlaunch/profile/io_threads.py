"""QEMU's I/O threads by their names: a disk's own, or one that several disks share."""

from __future__ import annotations

from collections.abc import Sequence

from sevlaunch.profile.model import OWN_THREAD, Disk

# All virtio-scsi disks have the thread of their controller.
SCSI_CONTROLLER = "scsi0"


def thread_name(index: int, disk: Disk) -> str | None:
    """The thread of a disk, the ``index``-th of the guest; None: QEMU's main loop."""
    if disk.iothread is None:
        return None
    owner = SCSI_CONTROLLER if disk.bus == "virtio-scsi" else f"disk{index}"
    return f"{owner}-thread" if disk.iothread == OWN_THREAD else f"thread-{disk.iothread}"


def loops(disks: Sequence[Disk]) -> set[str | None]:
    """The event loops that serve disks, each with workers of its own; None: QEMU's main loop."""
    return {thread_name(index, disk) for index, disk in enumerate(disks)}
