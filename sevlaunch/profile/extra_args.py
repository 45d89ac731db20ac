"""What ``qemu.extra_args`` may not hold: options that sevlaunch sets itself, and what breaks an encrypted guest."""

from __future__ import annotations

import json
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
    "pidfile": "`sevlaunch status`",
    "daemonize": "`sevlaunch up`, which starts guests in the background",
    "sandbox": "sevlaunch itself, always on",
    "runas": "the user who calls sevlaunch",
    "run-with": "the user who calls sevlaunch",
    "user": "the user who calls sevlaunch",
    "readconfig": "the keys of the profile",
}

# These restore or save the state of a guest, which encrypted memory does not allow.
STATE = ("incoming", "loadvm", "snapshot", "only-migratable")

_STATE_REASON = "encrypted memory can't be saved or restored: start the guest afresh"
_VFIO_REASON = "host devices can't be assigned to an encrypted guest: use virtio devices"


def check_extra_args(args: Sequence[str], *, encrypted: bool) -> Iterator[tuple[int, str]]:
    """What is wrong with ``args``: the index of the argument and the reason."""
    for index, argument in enumerate(args):
        option = argument.lstrip("-") if argument.startswith("-") else None
        if option in OWNED:
            yield index, f"-{option} is set by sevlaunch: use {OWNED[option]}"
        if not encrypted:
            continue
        if option in STATE:
            yield index, f"-{option}: {_STATE_REASON}"
        if option is None:
            preceding = args[index - 1].lstrip("-") if index else ""
            for reason in _value_problems(preceding, argument):
                yield index, reason


def _value_problems(option: str, value: str) -> Iterator[str]:
    properties = parse_value(value)
    driver = properties.get("driver") or properties.get("qom-type") or properties.get("", "")
    if option == "device":
        if driver.startswith("vfio") or ("host" in properties and driver.startswith("vhost-vdpa")):
            yield f"{driver}: {_VFIO_REASON}"
        if driver.startswith("ide-"):
            yield f"{driver}: q35 has no IDE controller for a SEV guest: use a virtio disk"
        if "virtio" in driver or driver.startswith("vhost-"):
            yield from _virtio_problems(driver, properties)
    elif option == "object" and driver in ("sev-guest", "sev-snp-guest", "tdx-guest"):
        yield f"{driver} is made by sevlaunch: use security"
    elif option == "drive":
        if properties.get("if") == "ide":
            yield "an IDE disk: use a virtio disk in disks"
        if properties.get("if") == "pflash":
            yield "pflash is set by sevlaunch: use firmware.code and firmware.vars"
        if properties.get("if") == "virtio":
            yield "if=virtio makes a device without the DMA API: use disks"
        if properties.get("snapshot") in ("on", "true", "yes"):
            yield _STATE_REASON
    elif option == "global":
        driver, _, rest = value.partition(".")
        name, _, setting = rest.partition("=")
        if properties.get("driver"):
            driver, name = properties["driver"], properties.get("property", "")
            setting = properties.get("value", "")
        if name in ("iommu_platform", "disable-modern", "disable-legacy"):
            yield from _virtio_problems(driver, {name: setting, "iommu_platform": "on"} | {name: setting})
        if name == "smm":
            yield "smm is set by sevlaunch"
    elif option == "net":
        yield "-net makes devices without the DMA API: use networks"
    elif option in ("hda", "hdb", "hdc", "hdd", "cdrom"):
        yield f"-{option} makes an IDE disk: use disks"


def _virtio_problems(driver: str, properties: dict[str, str]) -> Iterator[str]:
    if properties.get("iommu_platform") not in ("on", "true", "yes"):
        yield f"{driver} needs the DMA API in an encrypted guest: add disable-legacy=on,iommu_platform=on"
    if properties.get("disable-modern") in ("on", "true", "yes"):
        yield f"{driver}: disable-modern=on takes the DMA API away, which an encrypted guest needs"


def parse_value(value: str) -> dict[str, str]:
    """A QEMU option's value as properties: JSON, or ``first,key=value`` with doubled commas; ``first`` is under ''."""
    if value.startswith("{"):
        try:
            parsed = json.loads(value)
        except ValueError:
            return {}
        if isinstance(parsed, dict):
            return {
                key: "on" if item is True else "off" if item is False else str(item) for key, item in parsed.items()
            }
        return {}
    properties: dict[str, str] = {}
    for index, part in enumerate(value.replace(",,", "\0").split(",")):
        key, equals, text = part.replace("\0", ",").partition("=")
        if equals:
            properties[key] = text
        elif index == 0:
            properties[""] = key
        else:
            properties[key] = "on"
    return properties
