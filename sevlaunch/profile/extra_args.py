"""What ``qemu.extra_args`` may not hold: options that sevlaunch sets itself, and what breaks an encrypted guest."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

# Options that a key of the profile sets; a second one would contradict what the plan says and evidence shows.
OWNED = {
    "machine": "machine",
    "M": "machine",
    "accel": "accel",
    "enable-kvm": "accel",
    "cpu": "cpu.model",
    "smp": "cpu.count",
    "m": "memory.size",
    "overcommit": "memory.lock",
    "mem-prealloc": "memory.prealloc",
    "mem-path": "memory.hugepages",
    "bios": "firmware.image",
    "pflash": "firmware.code",
    "kernel": "boot.kernel",
    "initrd": "boot.initrd",
    "append": "boot.cmdline",
    "name": "name",
    "uuid": "uuid",
    "S": "the --paused option of `sevlaunch up`",
    "no-reboot": "on_reboot",
    "qmp": "`sevlaunch qmp`",
    "qmp-pretty": "`sevlaunch qmp`",
    "monitor": "`sevlaunch qmp`",
    "mon": "`sevlaunch qmp`",
    "pidfile": "`sevlaunch status`",
    "daemonize": "`sevlaunch up`, which starts guests in the background",
    "sandbox": "sevlaunch itself, always on",
    "runas": "the user who calls sevlaunch",
    "run-with": "the user who calls sevlaunch",
    "user": "the user who calls sevlaunch",
    "preconfig": "sevlaunch itself, which starts every guest paused",
    "readconfig": "the keys of the profile",
}

# These restore or save the state of a guest, which encrypted memory does not allow.
STATE = ("incoming", "loadvm", "snapshot", "only-migratable")

_STATE_REASON = "encrypted memory can't be saved or restored: start the guest afresh"
_VFIO_REASON = "host devices can't be assigned to an encrypted guest: use virtio devices"
_IDE_REASON = "makes an IDE disk: use disks"

# What else an encrypted guest can't have, whatever the value.
REFUSED = {
    **dict.fromkeys(STATE, _STATE_REASON),
    **dict.fromkeys(("hda", "hdb", "hdc", "hdd", "cdrom"), _IDE_REASON),
    **dict.fromkeys(("net", "nic"), "makes devices without the DMA API: use networks"),
    "virtfs": "makes a device without the DMA API: use a disk",
    "set": "changes what other options say: use the keys of the profile, or give the option the right value",
}

# The options without a value, of QEMU 7.2 to 11.1. After any other the next argument is its value, dashes or not.
FLAGS = frozenset(
    [
        "S",
        "async-teardown",
        "audio-help",
        "daemonize",
        "enable-kvm",
        "enable-sync-profile",
        "full-screen",
        "h",
        "help",
        "jitdump",
        "mem-prealloc",
        "no-acpi",
        "no-fd-bootchk",
        "no-hpet",
        "no-reboot",
        "no-shutdown",
        "no-user-config",
        "nodefaults",
        "nographic",
        "old-param",
        "only-migratable",
        "perfmap",
        "portrait",
        "preconfig",
        "s",
        "semihosting",
        "singlestep",
        "snapshot",
        "usb",
        "version",
        "win2k-hack",
        "xen-attach",
        "xen-domid-restrict",
    ]
)

# get_opt_name_value() in util/qemu-option.c: commas are doubled in values, not in keys.
_PART = re.compile(r"(?P<key>[^=,]*)(?:=(?P<text>(?:[^,]|,,)*))?")
_FIRST = re.compile(r"(?P<key>)(?P<text>(?:[^,]|,,)*)")

# What QEMU takes for true.
_ON = ("on", "true", "yes", "y")


def check_extra_args(args: Sequence[str], *, encrypted: bool) -> Iterator[tuple[int, str]]:
    """What is wrong with ``args``: the index of the argument and the reason."""
    awaiting: str | None = None
    for index, argument in enumerate(args):
        option = argument.lstrip("-") if argument.startswith("-") else None
        # Also for what looks like the value of another option: a newer QEMU may have flags that are not in FLAGS.
        if option in OWNED:
            yield index, f"-{option} is set by sevlaunch: use {OWNED[option]}"
        elif encrypted and option in REFUSED:
            reason = REFUSED[option]
            yield index, f"-{option}: {reason}" if option in STATE else f"-{option} {reason}"
        if awaiting is not None:
            if encrypted:
                for problem in _value_problems(awaiting, argument):
                    yield index, problem
            awaiting = None
        elif option is None:
            if encrypted:
                yield index, f"{argument!r} stands after no option, which {_IDE_REASON}"
        elif option not in FLAGS:
            awaiting = option


def _value_problems(option: str, value: str) -> Iterator[str]:
    properties = parse_value(value, implied_key=option != "drive")
    if option in ("device", "object", "audio") and value.startswith("{") and not properties:
        # QEMU's own parser takes more than JSON, single quotes for one.
        yield "can't read this as JSON: write it with double quotes, or as key=value"
        return
    driver = properties.get("driver") or properties.get("qom-type") or properties.get("", "")
    if option == "device":
        if driver.startswith(("vfio", "vhost-vdpa")):
            yield f"{driver}: {_VFIO_REASON}"
        if driver.startswith("ide-"):
            yield f"{driver}: q35 has no IDE controller for a SEV guest: use a virtio disk"
        if "virtio" in driver or driver.startswith("vhost-"):
            yield from _virtio_problems(driver, properties)
    elif option == "object" and driver in ("sev-guest", "sev-snp-guest", "tdx-guest"):
        yield f"{driver} is made by sevlaunch: use security"
    elif option == "drive":
        yield from _drive_problems(properties)
    elif option == "global":
        yield from _global_problems(value)
    elif option == "vga" and value.startswith("virtio"):
        yield "-vga virtio makes a device without the DMA API: use video"
    elif option == "audio" and properties.get("model", "").startswith("virtio"):
        yield "model=virtio makes a device without the DMA API: use -audiodev and -device"


def _drive_problems(properties: dict[str, str]) -> Iterator[str]:
    # Without "if", q35 makes it an IDE disk.
    if properties.get("if", "ide") == "ide":
        yield "an IDE disk: use disks, or if=none and a virtio device"
    if properties.get("if") == "pflash":
        yield "pflash is set by sevlaunch: use firmware.code and firmware.vars"
    if properties.get("if") == "virtio":
        yield "if=virtio makes a device without the DMA API: use disks"
    if properties.get("snapshot") in _ON:
        yield _STATE_REASON


def _global_problems(value: str) -> Iterator[str]:
    short = re.fullmatch(r"([^.=]+)\.([^=]+)=(.*)", value, re.DOTALL)
    if short:
        driver, name, setting = short.groups()
    else:
        properties = parse_value(value, implied_key=False)
        driver, name, setting = (properties.get(key, "") for key in ("driver", "property", "value"))
    if name in ("iommu_platform", "disable-modern", "disable-legacy"):
        yield from _virtio_problems(driver, {"iommu_platform": "on"} | {name: setting})
    if name == "smm":
        yield "smm is set by sevlaunch"


def _virtio_problems(driver: str, properties: dict[str, str]) -> Iterator[str]:
    if properties.get("iommu_platform") not in _ON:
        yield f"{driver} needs the DMA API in an encrypted guest: add disable-legacy=on,iommu_platform=on"
    if properties.get("disable-modern") in _ON:
        yield f"{driver}: disable-modern=on takes the DMA API away, which an encrypted guest needs"


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
