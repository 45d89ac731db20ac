"""A disk that is made of a folder: read-only, without a name on the host, and gone with the guest."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests import needs
from tests.conftest import HOSTS, VERSIONS, Command, qemu_binary_of
from tests.guest.support import JSON, no_traceback, nothing_left, some_qemu, with_qemu
from tests.guest.test_run_as import reachable, user

__all__ = ["reachable", "user"]


@pytest.fixture
def tools(base: Path) -> Path:
    """A folder with a file."""
    path = base / "tools"
    path.mkdir()
    (path / "file").write_text("content")
    return path


def profile_of(command: Command, *disks: dict[str, Any], **keys: Any) -> Path:
    """A profile of a plain guest ``g``."""
    file = command.base / "g.yaml"
    file.write_text(json.dumps({"accel": "tcg", "memory": "64M", "disks": disks, **keys}))
    return file


def disks_of(command: Command) -> list[tuple[bool, int]]:
    """Of each disk of the guest, whether it is read-only, and how many bytes it has."""
    found = [one for one in command("qmp", "g", "query-block").json if one["inserted"]["node-name"].startswith("disk")]
    return [(one["inserted"]["ro"], one["inserted"]["image"]["virtual-size"]) for one in found]


@pytest.mark.parametrize("version", VERSIONS)
def test_each_qemu_has_it_on_each_bus(version: str, tools: Path, sevlaunch: Command) -> None:
    disk = {"folder": str(tools)}
    cdrom = {**disk, "bus": "sata", "cdrom": True, "label": "CD"}
    profile = profile_of(sevlaunch, disk, {**disk, "cache": "none"}, {**disk, "bus": "virtio-scsi"}, cdrom)
    sevlaunch("up", profile, "--paused", *with_qemu(qemu_binary_of(version)))
    found = disks_of(sevlaunch)
    assert [read_only for read_only, _ in found] == [True] * 4
    assert len({size for _, size in found}) == 1
    assert not list(sevlaunch.state.glob("*.*")) and not list((sevlaunch.state / "g").rglob("*.iso"))
    sevlaunch("down", "g", "--now")
    nothing_left(sevlaunch)


def test_what_it_can_not_be_made_of_keeps_the_guest_from_starting(tools: Path, sevlaunch: Command) -> None:
    os.mkfifo(tools / "fifo")
    refused = sevlaunch("up", profile_of(sevlaunch, {"folder": str(tools)}), "--paused", *some_qemu(), check=4)
    assert "fifo is a FIFO" in refused.stderr
    no_traceback(refused)
    missing = sevlaunch("up", profile_of(sevlaunch, {"folder": "nowhere"}), "--paused", *some_qemu(), check=4)
    assert f"folder of a disk {sevlaunch.base}/nowhere: no such folder" in missing.stderr
    nothing_left(sevlaunch)


def test_qemus_account_need_not_read_the_folder(tools: Path, reachable: Command, user: str) -> None:
    needs.root("starting QEMU as another user")
    tools.chmod(0o700)
    reachable("up", profile_of(reachable, {"folder": str(tools)}, run_as=user), "--paused")
    assert [read_only for read_only, _ in disks_of(reachable)] == [True]
    reachable("down", "g", "--now")
    nothing_left(reachable)


def test_an_encrypted_guest_that_can_not_share_is_told_of_it(tools: Path, sevlaunch: Command) -> None:
    keys = {"accel": "kvm", "security": {"type": "sev-snp"}, "firmware": {"image": "fw.fd"}}
    profile = profile_of(sevlaunch, shares=[{"path": str(tools), "tag": "t"}], **keys)
    refused = sevlaunch("check", profile, check=1)
    assert "use a read-only disk that is made of it (disks: [{folder: DIR}])" in refused.stdout + refused.stderr
    (sevlaunch.base / "fw.fd").write_bytes(bytes(4 << 20))
    profile_of(sevlaunch, {"folder": str(tools), "label": "TOOLS"}, **keys)
    host = HOSTS / "milan-qemu-10.0.json"
    told = sevlaunch("render", profile, "--host", host, "--format", "explain").stdout
    assert f"made of {tools}, labelled TOOLS, at the start" in told
    assert "is for `sevlaunch up` to make" in sevlaunch("render", profile, "--host", host).stdout


def test_a_restart_has_what_is_in_the_folder_by_then(tools: Path, sevlaunch: Command) -> None:
    sevlaunch("up", profile_of(sevlaunch, {"folder": str(tools)}), *some_qemu())
    ((_, before),) = disks_of(sevlaunch)
    (tools / "more").write_bytes(bytes(1 << 20))
    sevlaunch("restart", "g", "--now", *JSON)
    ((_, after),) = disks_of(sevlaunch)
    assert after >= before + (1 << 20)
    sevlaunch("down", "g", "--now")
