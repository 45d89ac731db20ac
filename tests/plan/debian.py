"""Hosts with the firmware packages of a Debian."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from sevlaunch.host.firmware import UNDESCRIBED, read_descriptors
from sevlaunch.host.model import Host
from sevlaunch.host.ovmf import firmware_images
from sevlaunch.host.system import System
from tests import needs


def debian(suite: str, host: Host) -> Host:
    """The host with the firmware packages of Debian 12, 13 or sid, at the paths where they would be installed."""
    system = System(root=needs.debian_firmware(suite))
    descriptors, problems = read_descriptors([system.path("/usr/share/qemu/firmware")])
    assert problems == []
    installed = [replace(one, file=f"/{Path(one.file).relative_to(system.root)}") for one in descriptors]
    return replace(host, firmware=installed, firmware_images=firmware_images(system, installed, UNDESCRIBED))
