"""What a disk can't have, where it says so, and the neighbours that are fine."""

from __future__ import annotations

import pytest

from sevlaunch.errors import ProfileError
from sevlaunch.profile.loader import loads

SHA256 = f"sha256: {'ab' * 32}"
# The disks of a profile, the path to blame, part of the message, and what is fine instead.
CASES = [
    ("{path: a, bus: nvme, cdrom: true}", "0.cdrom", "nvme has no CD-ROM drives", "{path: a, bus: sata, cdrom: true}"),
    (
        "{path: a, bus: sata, iothread: own}",
        "0.iothread",
        "a sata disk has no I/O thread",
        "{path: a, bus: virtio-blk, iothread: own}",
    ),
    ("{path: a, bus: nvme, iothread: io}", "0.iothread", "a nvme disk", "{path: a, bus: virtio-scsi, iothread: io}"),
    ("{path: a, bus: sata, queues: 4}", "0.queues", "one queue", "{path: a, bus: nvme, queues: 4}"),
    ("{path: a, aio: native}", "0.aio", "found cache: writeback", "{path: a, aio: native, cache: none}"),
    (
        "{path: a, aio: native, cache: unsafe}",
        "0.aio",
        "use cache: none or directsync",
        "{path: a, aio: native, cache: directsync}",
    ),
    (
        "{path: a, detect_zeroes: unmap, discard: false}",
        "0.detect_zeroes",
        "needs discard",
        "{path: a, detect_zeroes: unmap}",
    ),
    (
        "{path: a, detect_zeroes: true, read_only: true}",
        "0.detect_zeroes",
        "nothing is written",
        "{path: a, detect_zeroes: true, discard: false}",
    ),
    (
        "{path: a, logical_block_size: 1000}",
        "0.logical_block_size",
        "a power of two",
        "{path: a, logical_block_size: 1024}",
    ),
    (
        "{path: a, logical_block_size: 4M}",
        "0.logical_block_size",
        "512 bytes to 2M",
        "{path: a, logical_block_size: 2M}",
    ),
    (
        "{path: a, bus: sata, logical_block_size: 4K}",
        "0.logical_block_size",
        "SATA disks have 512-byte blocks",
        "{path: a, bus: sata, logical_block_size: 512}",
    ),
    (
        "{path: a, bus: virtio-scsi, cdrom: true, logical_block_size: 4K}",
        "0.logical_block_size",
        "a CD-ROM has blocks of 2048",
        "{path: a, bus: virtio-scsi, logical_block_size: 4K}",
    ),
    (
        "{path: a, throttle: {iops: 5, iops_read: 3}}",
        "0.throttle.iops",
        "leave out either it or iops_read",
        "{path: a, throttle: {iops: 5, bytes_read: 3M, bytes_write: 3M}}",
    ),
    ("{path: a, throttle: {}}", "0.throttle", "it limits nothing", "{path: a, throttle: {bytes: 3M}}"),
    ("{path: a, format: luks}", "0.format", "needs luks_key", "{path: a, format: luks, luks_key: k}"),
    ("{path: a, format: raw, luks_key: k}", "0.luks_key", "no LUKS in it", "{path: a, format: qcow2, luks_key: k}"),
    ("{bus: nvme}", "0", "wanted path (what the guest writes to", "{bus: nvme, image: ./a}"),
    ("{path: a, image: b}", "0.image", "leave out either path or image", "{image: ./b}"),
    ("{path: a, folder: b}", "0.folder", "leave out either path or folder", "{folder: b}"),
    ("{path: a, label: b}", "0.label", "label is for the disk of a folder", "{folder: a, label: b}"),
    ("{folder: a, format: raw}", "0.format", "made anew at each start", "{folder: a, read_only: true}"),
    ("{folder: a, luks_key: k}", "0.luks_key", "made anew at each start", "{folder: a}"),
    ("{folder: a, size: 1G}", "0.size", "say image in place of path", "{folder: a}"),
    ("{folder: a, detect_zeroes: true}", "0.detect_zeroes", "nothing is written to this disk", "{folder: a}"),
    ("{folder: a, bus: sata}", "0.folder", "can't be read-only", "{folder: a, bus: sata, cdrom: true}"),
    ("{folder: a, label: a b}", "0.label", "1 to 32 letters", "{folder: a, label: a-b}"),
    ("{path: a, size: 1G}", "0.size", "say image in place of path", "{image: ./a, size: 1G}"),
    ("{path: a, overlay: keep}", "0.overlay", "say image in place of path", "{image: ./a, overlay: keep}"),
    (
        "{image: ./a, overlay: keep, read_only: true}",
        "0.overlay",
        "nothing is written to this disk",
        "{image: ./a, read_only: true}",
    ),
    (
        "{image: ./a, size: 1G, cdrom: true, bus: sata}",
        "0.size",
        "nothing is written to this disk",
        "{image: ./a, cdrom: true, bus: sata}",
    ),
    ("{image: ./a, luks_key: k}", "0.luks_key", "would hold in the clear", "{path: a, luks_key: k}"),
    ("{image: ./a, format: vmdk}", "0.format", "wanted raw or qcow2", "{image: ./a, format: qcow2}"),
    ("{image: https://x/a.img}", "0.image", "takes sha256, what it has to be", f"{{image: https://x/a.img, {SHA256}}}"),
    (
        f"{{image: a.img, {SHA256}}}",
        "0.sha256",
        "sha256 is for an image that is fetched",
        f"{{image: debian-13, {SHA256}}}",
    ),
    (f"{{path: a, {SHA256}}}", "0.sha256", "sha256 is for an image that is fetched", "{path: a}"),
    ("{image: ./a}, {path: a}", "1.path", "stands in the list twice", "{image: ./a}, {image: ./a}"),
    ("{path: a}, {image: ./a}", "1.image", "stands in the list twice", "{path: a, read_only: true}, {image: ./a}"),
    ("{path: a, slot: 3}, {path: b, slot: 3}", "1.slot", "disks.0 is on slot 3", "{path: a, slot: 3}, {path: b}"),
    (
        "{path: a, slot: 3}, {path: b, bus: nvme, slot: 3}",
        "1.slot",
        "disks.0 is on slot 3",
        "{path: a, slot: 3}, {path: b, bus: sata, slot: 3}",
    ),
    (
        "{path: a, bus: virtio-scsi, iothread: x}, {path: b, bus: virtio-scsi, iothread: y}",
        "1.iothread",
        "that of the controller of all virtio-scsi disks, and disks.0 says x",
        "{path: a, bus: virtio-scsi, iothread: x}, {path: b, bus: virtio-scsi}, {path: c, iothread: y}",
    ),
    (
        "{path: a, bus: virtio-scsi, queues: 2}, {path: b, bus: virtio-scsi, queues: 3}",
        "1.queues",
        "disks.0 says 2",
        "{path: a, bus: virtio-scsi, queues: 2}, {path: b, bus: virtio-scsi, queues: 2}",
    ),
    (
        "{path: a, bus: virtio-scsi, iommu_platform: true}",
        "0.iommu_platform",
        "of the controller of all virtio-scsi disks",
        "{path: a, iommu_platform: false}",
    ),
    ("{path: a, bus: sata, iommu_platform: false}", "0.iommu_platform", "for virtio devices", "{path: a, bus: sata}"),
]


def broken(disks: str) -> list[tuple[str, str]]:
    """Path and message of every problem of a plain guest with these disks."""
    try:
        loads(f"name: g\ndisks: [{disks}]\n", file="p.yaml")
    except ProfileError as error:
        return [(problem.path, problem.message) for problem in error.problems]
    return []


@pytest.mark.parametrize(("disks", "path", "message", "fine"), CASES, ids=[case[0] for case in CASES])
def test_a_rule_about_disks_fires_and_its_neighbour_does_not(disks: str, path: str, message: str, fine: str) -> None:
    ((found_path, found_message),) = broken(disks)
    assert found_path == f"disks.{path}"
    assert message in found_message
    assert broken(fine) == []


def test_the_key_of_a_disk_in_an_encrypted_guest_is_warned_of() -> None:
    disks = "disks: [{path: a, luks_key: k}]\n"
    (warning,) = loads(f"name: g\nsecurity: sev\n{disks}").warnings
    assert "the host has the key and reads the disk" in warning.message
    assert loads(f"name: g\n{disks}").warnings == ()
