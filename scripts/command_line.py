"""A QEMU command line as items that can be compared: one each for the machine, the firmware, every device."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sevlaunch.profile.extra_args import options_of
from sevlaunch.profile.option_values import parse_value
from sevlaunch.units import format_size, parse_size

Properties = dict[str, str]

# What only ties the parts of one command line together, or says where a device sits.
_WIRING = (
    *("id", "node-name", "bus", "addr", "multifunction", "port", "chassis", "unit", "scsi-id", "channel", "lun"),
    *("drive", "netdev", "rng", "chardev", "device_id", "qom-type", "driver", ""),
)
# Both spellings of what ties the machine to the security object.
_ENCRYPTION = ("confidential-guest-support", "memory-encryption")
_SECURITY = ("sev-guest", "sev-snp-guest")
# Their values are files of the program that starts QEMU.
_OWNER_FILES = ("dh-cert-file", "session-file")


def read_arguments(text: str) -> list[str]:
    """The arguments for QEMU in a shell command: without the variables before it, and the program."""
    words = shlex.split(text.replace("\\\n", " "))
    while words and "=" in words[0] and not words[0].startswith("/"):
        words.pop(0)
    return words[1:]


def items(arguments: Sequence[str]) -> dict[str, Properties]:
    """What the arguments make, by name: ``machine``, ``security``, ``virtio-blk-pci 1``, ..."""
    options = [(name, value or "") for _, name, value in options_of(arguments)]
    found: dict[str, Properties] = {}
    for name, value in options:
        for item, properties in _items(name, value, options):
            found[_numbered(item, found)] = properties
    return found


def _items(name: str, value: str, options: Sequence[tuple[str, str]]) -> Iterator[tuple[str, Properties]]:
    properties = _properties(value)
    first = properties.get("", value)
    if name == "machine":
        encrypted = {"encrypted": "on"} if properties.keys() & _ENCRYPTION else {}
        wiring = ("", "memory-backend", "pflash0", "pflash1", *_ENCRYPTION)
        yield "machine", {"type": first, **_without(properties, *wiring), **encrypted}
        for unit, item in (("pflash0", "firmware"), ("pflash1", "variables")):
            if unit in properties:
                yield item, {"file": _image(properties[unit], options)["file"], "through": "pflash"}
    elif name == "bios":
        yield "firmware", {"file": value, "through": "-bios"}
    elif name in ("accel", "cpu"):
        yield name, {"type": first, **_without(properties, "")}
    elif name == "smp":
        yield "vcpus", {"count": properties.get("cpus", first), **_without(properties, "", "cpus")}
    elif name == "m":
        size = properties.get("size", first)
        # A bare number is in MiB (qemu-options.hx, -m).
        yield "memory", {"size": format_size(parse_size(f"{size}M" if size.isdigit() else size.upper()))}
    elif name == "overcommit":
        if properties.get("mem-lock", "off") != "off":
            yield "locked memory", {"mem-lock": properties["mem-lock"]}
    elif name in ("kernel", "initrd", "append", "uuid"):
        yield name, {"value": value}
    elif name == "object" and (properties.get("qom-type") or first) in _SECURITY:
        yield "security", {"type": properties.get("qom-type") or first, **_security(properties)}
    elif name == "device":
        yield properties.get("driver") or first, _device(properties, options)


def _device(properties: Properties, options: Sequence[tuple[str, str]]) -> Properties:
    found = _without(properties, *_WIRING)
    if "drive" in properties:
        found |= _image(properties["drive"], options)
    if "netdev" in properties:
        backend = _named("netdev", properties["netdev"], options)
        found |= {"network": backend.get("type") or backend.get("", ""), **_without(backend, "id", "type", "")}
    if "rng" in properties:
        found["source"] = _named("object", properties["rng"], options).get("filename", "")
    return found


def _image(node: str, options: Sequence[tuple[str, str]]) -> Properties:
    """The image behind a block node: its file and what both programs say about it."""
    format_node = _named("blockdev", node, options)
    storage = _named("blockdev", format_node["file"], options) if "file" in format_node else format_node
    driver = format_node.get("driver", "")
    found = {
        "file": storage.get("file.filename") or storage.get("filename", ""),
        "format": driver if driver in ("raw", "qcow2") else "raw",
        "read-only": format_node.get("read-only", "off"),
    }
    # A node passes discards on only where it says so itself.
    for key, default in (("discard", "ignore"), ("cache.direct", "off"), ("cache.no-flush", "off")):
        found[key] = format_node.get(key, default)
    return found


def _security(properties: Properties) -> Properties:
    found = _without(properties, "id", "qom-type", "")
    return found | {key: "given" for key in _OWNER_FILES if key in found}


def _named(option: str, name: str, options: Sequence[tuple[str, str]]) -> Properties:
    for found, value in options:
        properties = _properties(value)
        if found == option and name in (properties.get("id"), properties.get("node-name")):
            return properties
    return {}


def _properties(value: str) -> Properties:
    if value.startswith("{"):
        return dict(_flat(json.loads(value), ""))
    return parse_value(value)


def _flat(value: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, below in value.items():
            yield from _flat(below, f"{key}.{name}" if key else name)
    elif isinstance(value, bool):
        yield key, "on" if value else "off"
    else:
        yield key, str(value)


def _without(properties: Properties, *keys: str) -> Properties:
    return {key: value for key, value in properties.items() if key not in keys}


def _numbered(item: str, found: Mapping[str, Properties]) -> str:
    number = 1
    while (name := item if number == 1 else f"{item} {number}") in found:
        number += 1
    return name
