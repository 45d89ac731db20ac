"""The main job on real input: real QEMU, real OVMF, a real Linux, and what that Linux itself says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT, VERSIONS, Command, qemu_binary_of, wait_for_console, wait_until

LIMIT = 300


def said(console: str, subject: str) -> list[str]:
    """The guest's own lines about a subject: ``demo: SUBJECT ...``."""
    return re.findall(rf"^demo: {subject} (.*?)\r?$", console, re.MULTILINE)


@pytest.mark.parametrize("version", VERSIONS)
def test_linux_boots_sees_every_device_behind_the_dma_api_and_powers_off_by_acpi(
    version: str, demo: Path, sevlaunch: Command
) -> None:
    started = sevlaunch("up", demo, "--format", "json", "--set", f"qemu.binary={qemu_binary_of(version)}").json
    assert started["state"] == "running"
    assert started["qemu"]["version"].startswith(version)
    console = wait_for_console(sevlaunch, "demo", "demo: ready", limit=LIMIT)

    devices = {line.split()[1]: line.split()[2:] for line in said(console, "virtio")}
    assert set(devices) == {"virtio_blk", "virtio_net", "virtio_rng"}
    for features in devices.values():
        assert features == ["version1=1", "access_platform=1"]
    assert said(console, "disk") == ["vda 8388608 DEMO1 ro sevlaunch demo disk"]
    assert said(console, "net") == ["eth0 10.0.2.15"]
    assert said(console, "rng") == ["virtio_rng.0 ok"]
    assert said(console, "cpus") == ["2"]
    assert said(console, "memory-encryption") == ["none"]
    assert said(console, "cmdline")[0].startswith("console=ttyS0 quiet cryptomgr.notests")

    followed = sevlaunch.start("logs", "-f", "demo")
    assert followed.stdout
    # It follows once it has printed what was there.
    assert followed.stdout.readline()
    down = sevlaunch("down", "demo", "--format", "json", limit=LIMIT).json
    assert down == [{"name": "demo", "how": "powered down"}]
    output, _ = followed.communicate(timeout=60)
    assert "demo: power button" in output
    assert sevlaunch.left_behind() == []


def test_the_guest_reboots_in_place_and_comes_up_again(demo: Path, sevlaunch: Command) -> None:
    sevlaunch("up", demo, "--set", "boot.cmdline=console=ttyS0 quiet cryptomgr.notests")
    wait_for_console(sevlaunch, "demo", "demo: ready", limit=LIMIT)
    pid = sevlaunch("status", "demo", "--format", "json").json["pid"]
    sevlaunch("qmp", "demo", "system_reset")
    log = sevlaunch.console_logs("demo")[0]
    wait_until(lambda: log.read_bytes().count(b"demo: ready") == 2, LIMIT, "a second boot")
    status = sevlaunch("status", "demo", "--format", "json").json
    assert (status["pid"], status["state"]) == (pid, "running")


def test_on_reboot_stop_ends_the_guest(demo: Path, sevlaunch: Command) -> None:
    sevlaunch("up", demo, "--paused", "--set", "on_reboot=stop")
    sevlaunch("resume", "demo")
    sevlaunch("qmp", "demo", "system_reset")
    wait_until(lambda: sevlaunch("status", "demo", "--format", "json").json["state"] == "exited", 30, "the end")


def test_a_scsi_disk_a_cdrom_a_virtio_console_and_a_second_network_work(demo: Path, sevlaunch: Command) -> None:
    disk = ROOT / "build/demo/disk.raw"
    sata = sevlaunch.base / "sata.raw"
    sata.write_bytes(bytes(1 << 20))
    sevlaunch(
        "up",
        demo,
        "--set",
        f"disks=[{{path: {disk}, bus: virtio-scsi, read_only: true, serial: S1}}, "
        f"{{path: {disk}, bus: virtio-scsi, cdrom: true}}, {{path: {sata}, bus: sata}}]",
        "--set",
        "networks=[{type: user}, {type: user}]",
    )
    console = wait_for_console(sevlaunch, "demo", "demo: ready", limit=LIMIT)
    devices = [line.split()[1] for line in said(console, "virtio")]
    assert sorted(devices) == ["virtio_net", "virtio_net", "virtio_rng", "virtio_scsi"]
    names = [line.split()[0] for line in said(console, "disk")]
    assert names == ["sda", "sr0"]
