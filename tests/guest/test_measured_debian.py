"""A real Debian with its root under dm-verity: systemd in its initrd opens it and takes the credentials behind that."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests import needs
from tests.conftest import Command, wait_for_console
from tests.guest.support import some_qemu
from tests.hash_trees import flip

LIMIT = 900.0
# An emulated processor takes longer for a disk than systemd waits by itself.
CMDLINE = "console=ttyS0 systemd.volatile=state systemd.default_device_timeout_sec=900"

pytestmark = pytest.mark.soak


@pytest.fixture
def measured(sevlaunch: Command) -> Path:
    """Its profile, with a copy of its root."""
    debian = needs.measured_debian()
    needs.program("veritysetup", "cryptsetup-bin")
    shutil.copy(debian / "root.raw", sevlaunch.base / "root.raw")
    sevlaunch("image", "verity", sevlaunch.base / "root.raw", limit=300)
    file = sevlaunch.base / "measured.yaml"
    file.write_text(
        "memory: 1G\ncpus: 2\naccel: tcg\n"
        f"boot:\n  kernel: {debian / 'vmlinuz'}\n  initrd: {debian / 'initrd.img'}\n  cmdline: {CMDLINE}\n"
        "  verity: {data: disk0, hash: disk1}\n  credentials: {motd: {text: hello from the profile}}\n"
        "disks: [{path: root.raw, read_only: true}, {path: root.raw.verity, read_only: true}]\n"
    )
    return file


def test_its_systemd_reports_the_root_and_the_credential(measured: Path, sevlaunch: Command) -> None:
    sevlaunch("up", measured, *some_qemu(), limit=300)
    console = wait_for_console(sevlaunch, "measured", "report: done", limit=LIMIT)
    reports = re.findall(r"report: (.*?)\r?$", console, re.MULTILINE)
    assert "verity verified" in reports
    assert any(line.startswith("root /dev/mapper/root ro,") for line in reports)
    assert "credential motd hello from the profile" in reports
    sevlaunch("down", "measured", "--now")
    assert sevlaunch.left_behind() == []


def test_it_does_not_come_up_when_the_tree_is_another_one(measured: Path, sevlaunch: Command) -> None:
    sevlaunch("up", measured, *some_qemu(), "--paused", limit=300)
    # The host changes the tree's top block behind sevlaunch's back.
    flip(measured.with_name("root.raw.verity"), 4096)
    sevlaunch("resume", "measured")
    console = wait_for_console(sevlaunch, "measured", "Failed to start systemd-veritysetup@root.service", limit=LIMIT)
    assert "report: " not in console
