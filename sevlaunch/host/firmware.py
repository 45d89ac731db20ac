"""Firmware descriptors: QEMU's docs/interop/firmware.json, read from the three folders with their precedence.

Files sort by name over all folders; the same name in a later folder takes the place of an earlier one, and an empty
file hides it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sevlaunch.host.firmware_facts import FirmwareDescriptor
from sevlaunch.host.folders import base_folder
from sevlaunch.opening import open_regular

ARCHITECTURE = "x86_64"
# A hundred times what a descriptor has.
MAX_BYTES = 1 << 18

# Images for encrypted guests that packages bring without a descriptor: Debian and Ubuntu, Fedora and RHEL, openSUSE
# and SLES, Proxmox.
UNDESCRIBED = (
    "/usr/share/ovmf/OVMF.amdsev.fd",
    "/usr/share/edk2/ovmf/OVMF.amdsev.fd",
    "/usr/share/qemu/ovmf-x86_64-sev.bin",
    "/usr/share/pve-edk2-firmware/OVMF_SEV_4M.fd",
    "/usr/share/ovmf/OVMF.fd",
)


def folders() -> list[Path]:
    """The folders of descriptors, lowest precedence first. libvirt leaves the last one out for root, and so do we."""
    found = [Path("/usr/share/qemu/firmware"), Path("/etc/qemu/firmware")]
    if os.geteuid() != 0:
        found.append((base_folder("XDG_CONFIG_HOME") or Path.home() / ".config") / "qemu/firmware")
    return found


def read_descriptors(search: Sequence[Path]) -> tuple[list[FirmwareDescriptor], list[str]]:
    """The descriptors for this architecture in order of preference, and what could not be read, one line each."""
    files: dict[str, Path] = {}
    for folder in search:
        if folder.is_dir():
            for file in folder.iterdir():
                if file.suffix == ".json" and not file.name.startswith("."):
                    files[file.name] = file
    descriptors: list[FirmwareDescriptor] = []
    problems: list[str] = []
    for _name, file in sorted(files.items()):
        try:
            with open_regular(file) as stream:
                content = stream.read(MAX_BYTES)
            descriptor = parse_descriptor(json.loads(content), str(file)) if content.strip() else None
        except OSError as error:
            problems.append(f"{file}: {error.strerror}")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            problems.append(f"{file}: no firmware descriptor: {type(error).__name__}: {error}")
        else:
            if descriptor is not None:
                descriptors.append(descriptor)
    return descriptors, problems


def parse_descriptor(content: dict[str, Any], file: str) -> FirmwareDescriptor | None:
    """The descriptor in ``content``, or None if it is for another architecture, or a kernel.

    :raise KeyError: and relatives, when it lacks what every descriptor has.
    """
    mapping = content["mapping"]
    targets = [target for target in content["targets"] if target["architecture"] == ARCHITECTURE]
    if not targets or mapping["device"] not in ("flash", "memory", "igvm"):
        return None
    flash = mapping["device"] == "flash"
    template = mapping.get("nvram-template")
    return FirmwareDescriptor(
        file=file,
        description=content.get("description", ""),
        device=mapping["device"],
        mode=mapping.get("mode", "split") if flash else "stateless",
        executable=mapping["executable"]["filename"] if flash else mapping["filename"],
        executable_format=mapping["executable"].get("format", "raw") if flash else "raw",
        nvram_template=template["filename"] if template else None,
        nvram_template_format=template.get("format", "raw") if template else "raw",
        interface_types=content["interface-types"],
        machines=[machine for target in targets for machine in target["machines"]],
        features=content["features"],
    )
