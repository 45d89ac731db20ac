"""The values of QEMU's options in ``qemu.extra_args``: how QEMU reads them, and which it or a guest can't have."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from sevlaunch.profile.qemu_options import DEBUGGER, FLOPPY, NO_CONTROLLER, OUTSIDE, STATE

# get_opt_name_value() in util/qemu-option.c: commas are doubled in values, not in keys.
_PART = re.compile(r"(?P<key>[^=,]*)(?:=(?P<text>(?:[^,]|,,)*))?")
_FIRST = re.compile(r"(?P<key>)(?P<text>(?:[^,]|,,)*)")

# What QEMU takes for true.
_ON = ("on", "true", "yes", "y")

# Options whose first property has a name of its own.
_NO_IMPLIED_KEY = ("drive", "action", "smbios", "spice")
# Options that take JSON, too.
_JSON = ("device", "object", "audio", "audiodev", "netdev", "blockdev", "display", "compat")
# Options that answer "help" and end.
_HELP = {"audio", "audiodev", "chardev", "d", "device", "display", "drive", "netdev", "nic", "object", "trace", "vga"}
# Options whose value is a character device, which may be a monitor, too.
_CHARACTER_DEVICES = ("serial", "parallel", "debugcon")
_DESCRIPTORS = ("fd", "fds", "vhostfd", "vhostfds")

_VFIO = "sevlaunch can't assign host devices to an encrypted guest yet: use virtio devices"
_MONITOR = "is another monitor beside sevlaunch's own: use `sevlaunch qmp`"
_SPAWNS = "QEMU would start a program for it, which its sandbox forbids"
_OUTSIDE_PROCESS = "is a device in another process, which reads guest memory, and that is encrypted"
_SECRET = "stands in the command line, which every user of this host can read: name a file instead"
_MEMORY = "is memory beside memory.size, for which sevlaunch's guests have no slots: use memory.size"

# Network devices that QEMU gives an option ROM of iPXE (grep romfile hw/ in 7.2 and 10.0). The ROMs of graphics cards
# have nothing in them for UEFI.
DEFAULT_ROMS = re.compile(
    r"e1000(e|-82540em|-82544gc|-82545em)?|i82(55\w+|562|801)|ne2k_pci|pcnet|rtl8139|vmxnet3"
    r"|virtio-net(-pci)?(-non-transitional|-transitional)?"
)

# virtio devices that are also there for legacy guests, which have no DMA API; behind a PCIe port QEMU leaves that out.
_TRANSITIONAL = re.compile(
    r"virtio-(9p|balloon|blk|net|rng|scsi|serial)(-pci)?|vhost-(scsi|vsock|user-blk|user-scsi|user-vsock)-pci"
)


class Remark(NamedTuple):
    """What is to be said of an argument; not ``refused``: a warning."""

    message: str
    refused: bool = True


def value_remarks(option: str, value: str, *, encrypted: bool, accel: str) -> Iterator[Remark]:
    """What is wrong with the value of an option that may stand in ``qemu.extra_args``, and what it does."""
    properties = parse_value(value, implied_key=option not in _NO_IMPLIED_KEY)
    if option in _JSON and value.startswith("{") and not properties:
        # QEMU's own parser takes more than JSON, single quotes for one.
        yield Remark("can't read this as JSON: write it with double quotes, or as key=value")
        return
    if option in _HELP and ({"help", "?"} & {properties.get(""), *properties}):
        yield Remark("makes QEMU print, and end: run it by hand")
        return
    if option in _CHARACTER_DEVICES and value.startswith("mon:"):
        yield Remark(f"{value} {_MONITOR}")
    if option in ("netdev", "chardev", "device", "nic", "net"):
        for key in sorted(properties.keys() & set(_DESCRIPTORS)):
            yield Remark(f"{key} names a file descriptor, and QEMU inherits none of a profile's")
    if option in _RULES:
        yield from _RULES[option](value, properties, encrypted)
    if option == "icount" and accel != "tcg":
        message = "-icount counts the instructions of TCG, and QEMU refuses it with KVM: use accel: tcg"
        yield Remark(message, refused=encrypted or accel == "kvm")


def _device(_value: str, properties: dict[str, str], encrypted: bool) -> Iterator[Remark]:
    driver = _driver(properties)
    if driver in ("pc-dimm", "nvdimm") or driver.startswith(("virtio-mem", "virtio-pmem")):
        yield Remark(f"{driver} {_MEMORY}")
    elif driver.startswith("xen-"):
        yield Remark(f"{driver} is for Xen; sevlaunch's guests run with KVM or TCG: use virtio devices")
    if not encrypted:
        return
    if driver.startswith(("vfio", "vhost-vdpa")):
        yield Remark(f"{driver}: {_VFIO}")
    elif driver == "x-pci-proxy-dev" or driver.startswith("vhost-user-"):
        yield Remark(f"{driver} {_OUTSIDE_PROCESS}: use virtio devices")
        return
    elif driver in ("loader", "guest-loader"):
        yield Remark(f"{driver} {OUTSIDE}: use boot.kernel with security.kernel_hashes, or a disk")
    elif driver in ("floppy", "isa-fdc"):
        yield Remark(f"{driver} {FLOPPY}")
    elif properties.get("romfile"):
        yield Remark(f"romfile={properties['romfile']} {OUTSIDE}: leave it empty (romfile=)")
    elif DEFAULT_ROMS.fullmatch(driver) and "romfile" not in properties:
        yield Remark(f"{driver} has an option ROM, which {OUTSIDE}: add romfile=")
    if "virtio" in driver or driver.startswith("vhost-"):
        lacking = list(_dma_api(driver, properties))
        if not lacking and _TRANSITIONAL.fullmatch(driver) and not ({"disable-legacy", "bus"} & properties.keys()):
            lacking = [Remark(f"{driver} is for legacy guests, too, and so has no DMA API: add disable-legacy=on")]
        yield from lacking


def _object(_value: str, properties: dict[str, str], encrypted: bool) -> Iterator[Remark]:
    kind = _driver(properties)
    if kind in ("sev-guest", "sev-snp-guest", "tdx-guest"):
        yield Remark(f"{kind} is made by sevlaunch: use security")
    elif kind == "igvm-cfg":
        yield Remark(f"{kind} is firmware, which sevlaunch sets: use firmware")
    elif kind in ("monitor-qmp", "monitor-hmp"):
        yield Remark(f"{kind} {_MONITOR}")
    elif encrypted and kind == "qtest":
        yield Remark(f"{kind} {DEBUGGER}")
    elif kind == "secret" and "data" in properties:
        yield Remark(f"data of a secret {_SECRET}", refused=False)
    elif kind.startswith("memory-backend-") and encrypted:
        yield Remark(f"{kind} is memory that the limits which sevlaunch counts don't have in them", refused=False)


def _drive(_value: str, properties: dict[str, str], encrypted: bool) -> Iterator[Remark]:
    # Without "if" it is "ide": a disk on the SATA controller of q35, which goes through the DMA API.
    interface = properties.get("if", "ide")
    if interface == "pflash":
        yield Remark("pflash is set by sevlaunch: use firmware.code and firmware.vars")
    if interface in ("scsi", "sd", "mtd", "xen"):
        yield Remark(f"if={interface} {NO_CONTROLLER}")
    if not encrypted:
        return
    if interface == "floppy":
        yield Remark(f"if=floppy {FLOPPY}")
    if interface == "virtio":
        yield Remark("if=virtio makes a device without the DMA API: use disks")
    if properties.get("snapshot") in _ON:
        yield Remark(STATE)


def _global(value: str, _properties: dict[str, str], encrypted: bool) -> Iterator[Remark]:
    if not encrypted:
        return
    short = re.fullmatch(r"([^.=]+)\.([^=]+)=(.*)", value, re.DOTALL)
    if short:
        driver, name, setting = short.groups()
    else:
        properties = parse_value(value, implied_key=False)
        driver, name, setting = (properties.get(key, "") for key in ("driver", "property", "value"))
    if name in ("iommu_platform", "disable-modern", "disable-legacy"):
        yield from _dma_api(driver, {"iommu_platform": "on"} | {name: setting})
    if name == "smm":
        yield Remark("smm is set by sevlaunch")
    if name == "romfile" and setting:
        yield Remark(f"romfile={setting} {OUTSIDE}: leave it empty")


def _dma_api(driver: str, properties: dict[str, str]) -> Iterator[Remark]:
    if properties.get("iommu_platform") not in _ON:
        yield Remark(f"{driver} needs the DMA API in an encrypted guest: add disable-legacy=on,iommu_platform=on")
    elif properties.get("disable-modern") in _ON:
        yield Remark(f"{driver}: disable-modern=on takes the DMA API away, which an encrypted guest needs")


def _netdev(_value: str, properties: dict[str, str], encrypted: bool) -> Iterator[Remark]:
    kind = properties.get("type") or properties.get("", "")
    if kind == "bridge" or properties.get("helper"):
        yield Remark(f"a bridge needs its helper, and {_SPAWNS}: use networks with type: bridge")
    elif kind == "passt":
        yield Remark(f"passt: {_SPAWNS}: use networks with type: passt")
    elif kind == "tap" and not (set(_DESCRIPTORS) & properties.keys()):
        scripts = [key for key in ("script", "downscript") if properties.get(key) not in ("no", "")]
        if scripts:
            yield Remark(f"{' and '.join(scripts)} of tap: {_SPAWNS}: add script=no,downscript=no")
    elif kind == "user" and ("smb" in properties or "-cmd:" in properties.get("guestfwd", "")):
        yield Remark(f"smb and guestfwd=...-cmd: {_SPAWNS}: use shares, or a host port")
    if encrypted and kind == "vhost-vdpa":
        yield Remark(f"{kind}: {_VFIO}")
    elif encrypted and kind == "vhost-user":
        yield Remark(f"{kind} {_OUTSIDE_PROCESS}: use networks")


def _action(_value: str, properties: dict[str, str], _encrypted: bool) -> Iterator[Remark]:
    if "reboot" in properties:
        yield Remark("reboot is set by sevlaunch: use on_reboot")
    if properties.get("shutdown") == "pause":
        message = "shutdown=pause keeps QEMU when the guest has powered off: `sevlaunch down` ends it at its time limit"
        yield Remark(message, refused=False)


def _boot(_value: str, properties: dict[str, str], _encrypted: bool) -> Iterator[Remark]:
    if {"", "order", "once"} & properties.keys():
        yield Remark("UEFI firmware does not look at the letters of -boot: use boot.order", refused=False)


def _display(_value: str, properties: dict[str, str], _encrypted: bool) -> Iterator[Remark]:
    if properties.get("") == "spice-app":
        yield Remark(f"spice-app: {_SPAWNS}: use -spice with unix=on,addr=PATH")
    elif "vnc" in properties:
        yield from _vnc(properties["vnc"], properties, False)


def _vnc(value: str, properties: dict[str, str], _encrypted: bool) -> Iterator[Remark]:
    address = properties.get("", value)
    guarded = {"password", "password-secret", "sasl", "tls-creds", "tls-authz"} & properties.keys()
    private = address == "none" or address.startswith(("unix:", "localhost:", "127.", "[::1]:"))
    if not guarded and not private:
        yield Remark(
            f"{address} shows the guest's screen to all who reach this host: use unix:PATH or 127.0.0.1:0",
            refused=False,
        )


def _spice(_value: str, properties: dict[str, str], _encrypted: bool) -> Iterator[Remark]:
    if "password" in properties:
        yield Remark(f"password {_SECRET} (password-secret)", refused=False)
    address = properties.get("addr", "")
    private = address == "localhost" or address.startswith(("127.", "::1")) or properties.get("unix") in _ON
    if properties.get("disable-ticketing") in _ON and not private:
        yield Remark("shows the guest's screen to all who reach this host: add addr=127.0.0.1", refused=False)


def _iscsi(_value: str, properties: dict[str, str], _encrypted: bool) -> Iterator[Remark]:
    if "password" in properties:
        yield Remark(f"password {_SECRET} (password-secret)", refused=False)


def _audio(_value: str, properties: dict[str, str], encrypted: bool) -> Iterator[Remark]:
    if encrypted and properties.get("model", "").startswith("virtio"):
        yield Remark("model=virtio makes a device without the DMA API: use -audiodev and -device")


def _usbdevice(value: str, _properties: dict[str, str], _encrypted: bool) -> Iterator[Remark]:
    if ":" in value:
        name = value.partition(":")[0]
        yield Remark(
            f"{value}: no QEMU here takes what stands behind {name}: use -device usb-... with a -drive or -chardev"
        )


def _vga(value: str, _properties: dict[str, str], encrypted: bool) -> Iterator[Remark]:
    if encrypted and value.startswith("virtio"):
        yield Remark("-vga virtio makes a device without the DMA API: use video")


def _driver(properties: dict[str, str]) -> str:
    return properties.get("driver") or properties.get("qom-type") or properties.get("", "")


_RULES: dict[str, Callable[[str, dict[str, str], bool], Iterator[Remark]]] = {
    "action": _action,
    "audio": _audio,
    "boot": _boot,
    "device": _device,
    "display": _display,
    "drive": _drive,
    "global": _global,
    "iscsi": _iscsi,
    "net": _netdev,
    "netdev": _netdev,
    "nic": _netdev,
    "object": _object,
    "spice": _spice,
    "usbdevice": _usbdevice,
    "vga": _vga,
    "vnc": _vnc,
}


def is_on(text: str | None) -> bool:
    """Whether QEMU takes the text of a property for true."""
    return text in _ON


def parse_value(value: str, *, implied_key: bool = True) -> dict[str, str]:
    """A QEMU option's value as properties: JSON, or ``first,key=value`` with doubled commas; ``first`` is under ''.

    As in QEMU, a ``key`` alone is on, ``nokey`` alone is ``key`` off, and the last of several counts. Without
    ``implied_key``, the first is a key like all others. What can't be read as JSON has no properties.
    """
    if value.startswith("{"):
        try:
            parsed = json.loads(value)
        except (ValueError, RecursionError):
            return {}
        if isinstance(parsed, dict):
            return {
                key: "on" if item is True else "off" if item is False else str(item) for key, item in parsed.items()
            }
        return {}
    properties: dict[str, str] = {}
    position = 0
    while position < len(value):
        part = _PART.match(value, position)
        assert part is not None, "it matches the empty text"
        if "=" not in part[0] and position == 0 and implied_key:
            part = _FIRST.match(value)
            assert part is not None, "it matches the empty text"
        key, text = part["key"] or "", part["text"]
        # The comma behind it is left out.
        position = part.end() + 1
        if not key and part.start():
            # Between two commas, or before "=": no property has that name.
            continue
        if text is not None:
            properties[key] = text.replace(",,", ",")
        elif key.startswith("no"):
            properties[key[2:]] = "off"
        else:
            properties[key] = "on"
    return properties
