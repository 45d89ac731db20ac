"""Disks of a plan: what stands in an image decides how QEMU opens it."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from sevlaunch.doctor.preflight import check_files
from sevlaunch.errors import HostError, ProfileError
from sevlaunch.host.facts import ImageFacts
from sevlaunch.host.images import images_at
from sevlaunch.host.model import Host
from sevlaunch.plan.plan import Plan
from sevlaunch.plan.resolve import resolve
from sevlaunch.profile.loader import loads
from tests.conftest import HOSTS

QCOW2 = b"QFI\xfb" + bytes(508)


@pytest.fixture
def milan() -> Host:
    """A recorded host."""
    return Host.load(HOSTS / "milan-qemu-10.0.json")


def plan_of(host: Host, disk: str, folder: Path, *, look: bool = True) -> Plan:
    """The plan of a guest with one disk, on a host that was asked about its image or was not."""
    loaded = loads(f"name: a\ndisks: [{disk}]\n", base=folder)
    return resolve(loaded, replace(host, images=images_at(loaded.profile.images)) if look else host)


def test_a_cloud_image_with_a_neutral_name_is_what_it_is(milan: Host, tmp_path: Path) -> None:
    (tmp_path / "noble.img").write_bytes(QCOW2)
    disk = plan_of(milan, "{path: noble.img}", tmp_path).storage.disks[0]
    assert (disk.format.value, disk.format.reason.text) == ("qcow2", "by the image's content")
    assert "driver=qcow2" in disk.backend().argv[1]


@pytest.mark.parametrize(
    ("name", "content", "said", "message"),
    [
        ("noble.img", QCOW2, ", format: raw", "noble.img is a qcow2 image by its content, and raw by its format"),
        ("a.img", bytes(512), ", format: qcow2", "a.img is a raw image by its content, and qcow2 by its format"),
        ("a.qcow2", bytes(512), "", "a.qcow2 is a raw image by its content, and qcow2 by its name"),
        ("a.raw", QCOW2, "", "a.raw is a qcow2 image by its content, and raw by its name"),
        ("a.vmdk", QCOW2, "", "a.vmdk is a qcow2 image by its content, and vmdk by its name"),
    ],
)
def test_a_contradiction_is_refused(
    milan: Host, tmp_path: Path, name: str, content: bytes, said: str, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ProfileError) as caught:
        plan_of(milan, f"{{path: {name}{said}}}", tmp_path)
    (problem,) = caught.value.problems
    assert problem.message.endswith(message)
    assert problem.path == ("disks.0.format" if said else "disks.0.path")


def test_a_format_that_is_said_and_true_is_stronger_than_a_name(milan: Host, tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_bytes(QCOW2)
    assert plan_of(milan, "{path: a.raw, format: qcow2}", tmp_path).storage.disks[0].format.value == "qcow2"


def test_without_a_look_the_start_refuses_what_would_destroy_the_image(milan: Host, tmp_path: Path) -> None:
    (tmp_path / "noble.img").write_bytes(QCOW2)
    plan = plan_of(milan, "{path: noble.img}", tmp_path, look=False)
    assert plan.storage.disks[0].format.value == "raw"
    with pytest.raises(HostError) as caught:
        check_files(plan)
    messages = [problem.message for problem in caught.value.problems]
    assert f"disk {tmp_path}/noble.img: is a qcow2 image, and QEMU would open it as raw" in messages


@pytest.mark.parametrize(("block_device", "driver"), [(True, "host_device"), (False, "file")])
def test_a_block_device_is_told_by_looking(milan: Host, block_device: bool, driver: str) -> None:
    """A link elsewhere to a block device is one, and a file in /dev/shm is none."""
    path = "/srv/disk" if block_device else "/dev/shm/disk"
    facts = ImageFacts(format="raw", block_device=block_device, size=1 << 20)
    plan = resolve(loads(f"name: a\ndisks: [{{path: {path}}}]\n"), replace(milan, images={path: facts}))
    disk = plan.storage.disks[0]
    assert f"file.driver={driver}" in disk.backend().argv[1]
    assert bool(disk.needs.devices) is block_device
    assert bool(disk.needs.files) is not block_device
