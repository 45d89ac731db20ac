"""Disks and CD-ROM drives."""

from __future__ import annotations

from typing import get_args

from sevlaunch.libvirt.boot_order import note_boot
from sevlaunch.libvirt.conversion import Conversion
from sevlaunch.libvirt.disk_tuning import import_disk_tuning
from sevlaunch.libvirt.document import Element, Part
from sevlaunch.libvirt.outcomes import Key
from sevlaunch.libvirt.virtio import import_dma_api, note_modern
from sevlaunch.profile.fields import MAX_SERIAL_BYTES
from sevlaunch.profile.model import BASE_FORMATS, ImageFormat

# disk@type -> the attribute of source that has the path.
_SOURCES = {"file": "file", "block": "dev"}
_BUSES = {"virtio": "virtio-blk", "scsi": "virtio-scsi", "nvme": "nvme", "sata": "sata", "ide": "ide"}
_CACHES = ("writeback", "none", "writethrough", "directsync", "unsafe")


def import_disks(conversion: Conversion) -> None:
    """devices/disk, in their order."""
    for disk in conversion.devices.all("disk"):
        reason = _impossible(disk)
        if reason:
            conversion.outcomes.unsupported(disk, reason)
        elif disk.get("device") == "cdrom" and not disk.child("source"):
            conversion.outcomes.drop(disk, "an empty drive; a CD-ROM can't be put in later")
        else:
            _disk(conversion, disk, conversion.next("disks"))


def _impossible(disk: Element) -> str:
    """Why the whole disk stays behind, or nothing."""
    kind, device, source = disk.get("type"), disk.get("device") or "disk", disk.child("source")
    image_format = disk.child("driver").get("type") or "raw"
    empty = device == "cdrom" and not source
    if device not in ("disk", "cdrom"):
        return f"no {device} devices: only disks and CD-ROM drives"
    if not empty and (kind not in _SOURCES or not source.get(_SOURCES[kind])):
        return f"a disk is a file or a block device of this host, not {kind or 'nothing'}"
    if image_format not in get_args(ImageFormat):
        return f"no {image_format} images: convert it with qemu-img convert -O qcow2"
    for name in ("slices", "encryption"):
        if source.child(name) or disk.child(name):
            return f"without its {name} the guest would see other data"
    if _is_transient(disk) and (kind != "file" or image_format not in BASE_FORMATS):
        return f"what the guest writes would stay: what is not written is an image file, {' or '.join(BASE_FORMATS)}"
    return ""


def _is_transient(disk: Element) -> bool:
    """Whether what the guest writes is gone with it."""
    return bool(disk.child("transient")) and not disk.child("readonly") and disk.get("device") != "cdrom"


def _disk(conversion: Conversion, disk: Element, key: Key) -> None:
    outcomes, source, driver = conversion.outcomes, disk.child("source"), disk.child("driver")
    kind = str(disk.get("type"))
    attribute = _SOURCES[kind]
    transient = _is_transient(disk)
    where = "image" if transient else "path"
    outcomes.carry((*key, where), source.get(attribute), source.part(attribute), disk.part("type"))
    if transient:
        outcomes.carry((*key, "overlay"), "ephemeral", disk.child("transient"))
        if disk.child("transient").get("shareBacking"):
            outcomes.same(disk.child("transient").part("shareBacking"), "guests may share an image")
    elif disk.child("transient"):
        outcomes.same(disk.child("transient"), "nothing is written to it")
    cdrom = disk.get("device") == "cdrom"
    _bus(conversion, disk, key, cdrom=cdrom)
    if cdrom:
        outcomes.carry((*key, "cdrom"), True, disk.part("device"))
        outcomes.same(disk.child("readonly"), "a CD-ROM is read-only")
    else:
        outcomes.same(disk.part("device"), "a disk")
        if disk.child("readonly"):
            outcomes.carry((*key, "read_only"), True, disk.child("readonly"))
    if driver.get("name") == "qemu":
        outcomes.same(driver.part("name"), "QEMU")
    if driver.get("type"):
        outcomes.carry((*key, "format"), driver.get("type"), driver.part("type"))
    else:
        outcomes.carry((*key, "format"), "raw", Part(disk), reason="libvirt's default")
    if driver.get("cache") in _CACHES:
        outcomes.carry((*key, "cache"), driver.get("cache"), driver.part("cache"))
    elif driver.get("cache") == "default":
        outcomes.same(driver.part("cache"), "QEMU's default, writeback")
    if driver.get("discard") in ("unmap", "ignore"):
        outcomes.carry((*key, "discard"), driver.get("discard") == "unmap", driver.part("discard"))
    elif not cdrom:
        # It would take the room from an image that was made to have all of it.
        outcomes.carry((*key, "discard"), False, Part(disk), reason="libvirt's default: the guest's TRIM is ignored")
    import_disk_tuning(conversion, disk, key)
    _serial(conversion, disk.child("serial"), key)
    note_boot(conversion, disk, key)


def _bus(conversion: Conversion, disk: Element, key: Key, *, cdrom: bool) -> None:
    outcomes, target = conversion.outcomes, disk.child("target")
    outcomes.drop(target.part("dev"), "the guest names its disks itself")
    # Without a bus libvirt tells it from the name; src/util/virutil.c, virDiskNameParse().
    by_name = {"hd": "ide", "sd": "scsi", "vd": "virtio", "xvd": "xen", "fd": "fdc"}
    name = target.get("dev") or ""
    wanted = target.get("bus") or next((bus for prefix, bus in by_name.items() if name.startswith(prefix)), "virtio")
    bus = _BUSES.get(wanted)
    fitting = "virtio-scsi" if cdrom else "virtio-blk"
    about = target.part("bus") or Part(target if target else disk)
    if bus in ("virtio-blk", "nvme") and cdrom:
        bus = None
    read_only_ata = bus in ("ide", "sata") and bool(disk.child("readonly")) and not cdrom
    if bus is None or read_only_ata:
        found = f"read-only {wanted} disks" if read_only_ata else f"{wanted} {'CD-ROM drives' if cdrom else 'disks'}"
        outcomes.correct((*key, "bus"), fitting, about, f"no {found} in sevlaunch")
    elif bus == "ide" and (conversion.encrypted or _is_q35(conversion)):
        outcomes.correct((*key, "bus"), "sata", about, "q35 has no IDE controller")
    else:
        outcomes.carry((*key, "bus"), bus, about)
    if outcomes.values[(*key, "bus")].value == "virtio-blk":
        import_dma_api(conversion, disk, key)
        note_modern(conversion, disk, disk.get("model"))


def _serial(conversion: Conversion, serial: Element, key: Key) -> None:
    if not serial.text:
        return
    fitting = serial.text.encode()[:MAX_SERIAL_BYTES].decode(errors="ignore")
    if fitting == serial.text:
        conversion.outcomes.carry((*key, "serial"), fitting, serial)
    else:
        reason = f"QEMU cuts it to {MAX_SERIAL_BYTES} bytes, too"
        conversion.outcomes.correct((*key, "serial"), fitting, serial, reason)


def _is_q35(conversion: Conversion) -> bool:
    return "q35" in str(conversion.outcomes.values[("machine",)].value)
