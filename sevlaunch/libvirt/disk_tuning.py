"""How a disk is read and written: threads, queues, limits, the size of its blocks."""

from __future__ import annotations

from sevlaunch.libvirt.conversion import Conversion, number
from sevlaunch.libvirt.document import Element
from sevlaunch.libvirt.outcomes import Key

_VIRTIO = ("virtio-blk", "virtio-scsi")
_PAST_THE_CACHE = ("none", "directsync")
# What every disk has.
_SMALLEST = 512
# Elements of iotune, and keys of throttle.
_LIMITS = {
    "total_iops_sec": "iops",
    "read_iops_sec": "iops_read",
    "write_iops_sec": "iops_write",
    "total_bytes_sec": "bytes",
    "read_bytes_sec": "bytes_read",
    "write_bytes_sec": "bytes_write",
}


def import_disk_tuning(conversion: Conversion, disk: Element, key: Key) -> None:
    """What of driver, iotune and blockio a profile can say. Its bus and its cache are known by now."""
    outcomes, driver = conversion.outcomes, disk.child("driver")
    bus = outcomes.values[(*key, "bus")].value
    cache = outcomes.values.get((*key, "cache"))
    if driver.get("io") in ("threads", "io_uring") or (
        driver.get("io") == "native" and cache is not None and cache.value in _PAST_THE_CACHE
    ):
        outcomes.carry((*key, "aio"), driver.get("io"), driver.part("io"))
    # The controller's own settings go before those of its disks.
    if bus == "virtio-blk":
        if number(driver.get("iothread")):
            outcomes.carry((*key, "iothread"), f"io{driver.get('iothread')}", driver.part("iothread"))
        if number(driver.get("queues")):
            outcomes.carry((*key, "queues"), number(driver.get("queues")), driver.part("queues"))
    _zeroes(conversion, disk, key)
    size = number(disk.child("blockio").get("logical_block_size"))
    if size and (*key, "cdrom") not in outcomes.values and (bus in (*_VIRTIO, "nvme") or size == _SMALLEST):
        outcomes.carry((*key, "logical_block_size"), size, disk.child("blockio").part("logical_block_size"))
    for name, limit in _LIMITS.items():
        element = disk.child("iotune").child(name)
        if number(element.text):
            outcomes.carry((*key, "throttle", limit), number(element.text), element)


def _zeroes(conversion: Conversion, disk: Element, key: Key) -> None:
    driver = disk.child("driver")
    wanted, part = driver.get("detect_zeroes"), driver.part("detect_zeroes")
    if wanted == "off":
        conversion.outcomes.same(part, "sevlaunch's default")
    elif wanted in ("on", "unmap") and not disk.child("readonly") and disk.get("device") != "cdrom":
        # Without discard='unmap' libvirt writes the zeros.
        unmap = wanted == "unmap" and driver.get("discard") == "unmap"
        conversion.outcomes.carry((*key, "detect_zeroes"), "unmap" if unmap else True, part)
