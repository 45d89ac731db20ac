"""What a real firmware boots, as devices come and go, with what it remembers of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests import needs
from tests.conftest import Command, qemu_binary_of, wait_for_console
from tests.guest.bootable import write_bootable

SYSTEM = {"path": "system.raw"}
DATA = {"path": "data.raw"}
NETWORK = {"type": "user", "restrict": True}


def booted(command: Command, profile: dict[str, Any], text: str, *, binary: str) -> None:
    """Start the guest ``g`` and see that the disk is booted whose program writes ``text``."""
    file = command.base / "g.yaml"
    file.write_text(json.dumps({"accel": "tcg", "memory": "128M", "qemu": {"binary": binary}, **profile}))
    command("up", file)
    seen = wait_for_console(command, "g", " is booted", 240)
    assert f"{text} is booted" in seen, seen[-400:]
    command("down", "g", "--now")


def installed(path: Path, text: str) -> Path:
    """A disk on which something can be booted."""
    return write_bootable(path, f"{text} is booted")


def sequence(command: Command, machine: str, disk: dict[str, Any], cdrom: str, binary: str) -> None:
    """An installation from a CD-ROM, which then goes, as a network does; a further disk comes."""
    base = command.base
    system = {**SYSTEM, **disk}
    installer = {"path": "installer.iso", "cdrom": True, "bus": cdrom}
    installed(base / "installer.iso", "the installer")
    installed(base / "data.raw", "the data disk")
    (base / "system.raw").write_bytes(bytes(1 << 20))
    profile = {"machine": machine, "disks": [installer, system], "networks": [NETWORK, NETWORK]}
    booted(command, profile, "the installer", binary=binary)
    installed(base / "system.raw", "the system")
    booted(command, profile, "the system", binary=binary)
    profile |= {"disks": [system, DATA], "networks": [NETWORK]}
    booted(command, profile, "the system", binary=binary)
    booted(command, {**profile, "boot": {"order": ["disk1", "disk0"]}}, "the data disk", binary=binary)
    booted(command, profile, "the system", binary=binary)


def test_the_right_disk_is_booted_after_a_cdrom_and_a_network_went_and_a_disk_came(sevlaunch: Command) -> None:
    needs.ovmf()
    sequence(sevlaunch, "q35", {}, "sata", qemu_binary_of("10.0"))


@pytest.mark.soak
@pytest.mark.parametrize(
    ("machine", "disk", "cdrom"),
    [
        ("q35", {"bus": "nvme"}, "sata"),
        ("q35", {"bus": "sata"}, "sata"),
        ("q35", {"bus": "virtio-scsi"}, "virtio-scsi"),
        ("pc", {}, "sata"),
        ("pc", {"bus": "ide"}, "ide"),
    ],
)
def test_it_is_on_each_bus_and_qemu(
    machine: str, disk: dict[str, Any], cdrom: str, qemu_binary: str, sevlaunch: Command
) -> None:
    needs.ovmf()
    sequence(sevlaunch, machine, disk, cdrom, qemu_binary)


@pytest.mark.parametrize("machine", ["q35", pytest.param("pc", marks=pytest.mark.soak)])
def test_a_disk_behind_a_port_or_bridge_is_booted(machine: str, sevlaunch: Command) -> None:
    needs.ovmf()
    empty = [{"path": f"{number}.raw"} for number in range(35)]
    for disk in empty:
        (sevlaunch.base / disk["path"]).write_bytes(bytes(1 << 20))
    installed(sevlaunch.base / "system.raw", "the system")
    profile = {"machine": machine, "disks": [*empty, SYSTEM], "boot": {"order": ["disk35"]}}
    booted(sevlaunch, profile, "the system", binary=qemu_binary_of("10.0"))
