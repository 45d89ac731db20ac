"""Disks of a plan: what stands in an image decides how QEMU opens it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from msgspec.structs import replace

from sevlaunch.doctor.preflight import check_files
from sevlaunch.errors import HostError, ProfileError
from sevlaunch.host.facts import ImageFacts
from sevlaunch.host.images import images_at
from sevlaunch.host.model import Host
from sevlaunch.plan.command_line import argv
from sevlaunch.plan.plan import Plan
from sevlaunch.plan.resolve import resolve
from sevlaunch.profile.loader import loads
from sevlaunch.profile.seats import seats
from tests import needs
from tests.conftest import HOSTS, VERSIONS
from tests.plan.asking import ask

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
    disk = plan_of(milan, "{path: noble.img}", tmp_path).storage.disks[0].image
    assert (disk.format.value, disk.format.reason.text) == ("qcow2", "by the image's content")
    assert "driver=qcow2" in next(disk.options()).argv[1]


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
    assert plan_of(milan, "{path: a.raw, format: qcow2}", tmp_path).storage.disks[0].image.format.value == "qcow2"


def test_without_a_look_the_start_refuses_what_would_destroy_the_image(milan: Host, tmp_path: Path) -> None:
    (tmp_path / "noble.img").write_bytes(QCOW2)
    plan = plan_of(milan, "{path: noble.img}", tmp_path, look=False)
    assert plan.storage.disks[0].image.format.value == "raw"
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
    disk = plan.storage.disks[0].image
    assert f"file.driver={driver}" in next(disk.options()).argv[1]
    assert bool(disk.needs.devices) is block_device
    assert bool(disk.needs.files) is not block_device


EVERYTHING = """
name: g
accel: tcg
firmware: {image: fw.fd}
disks:
  - {path: a.raw, iothread: own, queues: 4, aio: io_uring, detect_zeroes: unmap, logical_block_size: 4K}
  - {path: b.raw, iothread: shared, aio: native, cache: none, throttle: {iops: 100, bytes_read: 10M, bytes_write: 5M}}
  - {path: c.raw, bus: virtio-scsi, iothread: shared, queues: 2, detect_zeroes: true, discard: false}
  - {path: d.raw, bus: nvme, queues: 3, serial: N1, logical_block_size: 4096, slot: 7}
  - {path: e.raw, bus: nvme, read_only: true}
  - {path: f.raw, bus: sata, throttle: {bytes: 1M}}
  - {path: g.raw, bus: sata, cdrom: true, throttle: {iops_read: 10}}
"""


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("machine", ["q35", "pc"])
def test_qemu_has_disks_as_the_profile_says(version: str, machine: str, base: Path) -> None:
    asked = [
        ("disk0", "num-queues", 4),
        ("disk0", "logical_block_size", 4096),
        ("disk0", "physical_block_size", 4096),
        ("disk3", "max_ioqpairs", 3),
        ("disk3", "serial", "N1"),
        ("disk3", "logical_block_size", 4096),
        ("disk4", "serial", "disk4"),
        ("disk5", "drive", "disk5-throttled"),
        ("scsi0", "num_queues", 2),
    ]
    commands = [
        ("qom-get", {"path": f"/machine/peripheral/{name if name == 'scsi0' else name + '-device'}", "property": key})
        for name, key, _ in asked
    ]
    answers = ask(
        version,
        base,
        f"{EVERYTHING}machine: {machine}\n",
        *commands,
        ("query-named-block-nodes", {"flat": True}),
        ("query-iothreads", {}),
        ("qom-get", {"path": "/objects/disk1-limits", "property": "limits"}),
    )
    *values, nodes, threads, limits = answers
    assert values == [value for _, _, value in asked]
    zeroes = {node["node-name"]: node["detect_zeroes"] for node in nodes if node["node-name"].startswith("disk")}
    assert (zeroes["disk0"], zeroes["disk1"], zeroes["disk2"]) == ("unmap", "off", "on")
    assert sorted(thread["id"] for thread in threads) == ["disk0-thread", "thread-shared"]
    assert {key: limits[key] for key in ("iops-total", "bps-read", "bps-write", "bps-total")} == {
        "iops-total": 100,
        "bps-read": 10 << 20,
        "bps-write": 5 << 20,
        "bps-total": 0,
    }


@pytest.mark.parametrize("image_format", ["luks", "qcow2"])
@pytest.mark.parametrize("version", VERSIONS)
def test_qemu_opens_a_luks_image_by_the_key_in_a_file(version: str, image_format: str, base: Path) -> None:
    qemu_img = needs.program("qemu-img", "qemu-utils")
    key = base / "a, key"
    key.write_text("correct horse")
    image = base / "secret.img"
    # A quicker hash takes a fast processor less than the kernel's clock for processor time can tell ("Unable to get
    # accurate CPU usage").
    options = "key-secret=k,hash-alg=sha512,iter-time=10"
    if image_format == "qcow2":
        options = "encrypt.format=luks," + ",".join(f"encrypt.{option}" for option in options.split(","))
    secret = f"secret,id=k,file={str(key).replace(',', ',,')}"
    subprocess.run(
        [qemu_img, "create", "-q", "-f", image_format, "--object", secret, "-o", options, image, "1M"], check=True
    )
    text = f"name: g\naccel: tcg\nfirmware: {{image: fw.fd}}\ndisks: [{{path: secret.img, luks_key: '{key}'}}]\n"
    (nodes,) = ask(version, base, text, ("query-named-block-nodes", {"flat": True}))
    (node,) = (node for node in nodes if node["node-name"] == "disk0")
    assert (node["drv"], node["encrypted"]) == (image_format, True)
    loaded = loads(text, base=base)
    plan = resolve(loaded, replace(Host.load(HOSTS / "milan-qemu-10.0.json"), images=images_at(loaded.profile.images)))
    assert not any("correct horse" in argument for argument in argv(plan))
    assert [file.path for file in plan.needs.files if file.what == "LUKS key"] == [str(key)]


def test_what_is_no_luks_image_has_no_key_and_qcow2_with_luks_needs_one(milan: Host, tmp_path: Path) -> None:
    (tmp_path / "plain.img").write_bytes(bytes(512))
    with pytest.raises(ProfileError, match=r"plain\.img is no LUKS image"):
        plan_of(milan, "{path: plain.img, luks_key: k}", tmp_path)
    (tmp_path / "closed.img").write_bytes(QCOW2[:32] + b"\0\0\0\2" + bytes(476))
    with pytest.raises(ProfileError, match=r"encrypted \(LUKS in qcow2\)"):
        plan_of(milan, "{path: closed.img}", tmp_path)
    # The guest itself opens it.
    (tmp_path / "guests.img").write_bytes(b"LUKS\xba\xbe\0\2" + bytes(504))
    assert plan_of(milan, "{path: guests.img}", tmp_path).storage.disks[0].image.format.value == "raw"


def test_an_io_thread_is_counted_for_locked_memory(milan: Host) -> None:
    def locked(disks: str) -> str:
        return str(resolve(loads(f"name: a\nsecurity: sev\ndisks: [{disks}]\n"), milan).memory.lock_limit)

    assert "stacks of 6 threads + " in locked("{path: a}, {path: b}")
    assert "stacks of 64 threads for disks" in locked("{path: a}, {path: b}")
    assert "stacks of 7 threads + " in locked("{path: a, iothread: own}, {path: b}")
    assert "stacks of 128 threads for disks" in locked("{path: a, iothread: own}, {path: b}")
    assert "stacks of 64 threads for disks" in locked("{path: a, iothread: x}, {path: b, iothread: x}")


def test_the_dma_api_is_off_for_a_whole_plain_guest_controllers_included(milan: Host) -> None:
    text = (
        "name: a\niommu_platform: false\n"
        "disks: [{path: a}, {path: b, bus: virtio-scsi}, {path: c, iommu_platform: on}]\n"
        "networks: [{type: user}]\nballoon: true\nvsock: auto\nconsole: virtio\nguest_agent: true\nvideo: virtio\n"
    )
    switches = [argument.rpartition("iommu_platform=")[2] for argument in argv(resolve(loads(text), milan))]
    assert [switch for switch in switches if switch in ("on", "off")].count("off") == 9
    (one,) = (argument for argument in argv(resolve(loads(text), milan)) if "iommu_platform=on" in argument)
    assert "drive=disk2" in one


def test_a_disk_that_the_firmware_does_not_look_at_is_warned_of_where_it_is_to_be_booted(milan: Host) -> None:
    def warnings(order: str) -> list[str]:
        disks = ", ".join(f"{{path: d{number}, bus: virtio-scsi}}" for number in range(33))
        plan = resolve(loads(f"name: a\ndisks: [{disks}]\nboot: {{order: [{order}]}}\n"), milan)
        return [warning for warning in plan.warnings if "OVMF looks at the first 32" in warning]

    assert len(warnings("disk32")) == 1
    assert warnings("disk31") == []


@pytest.mark.parametrize(
    ("disks", "found"),
    [
        ("{path: a}, {path: b}, {path: c, bus: nvme}", [0, 1, 2]),
        ("{path: b, slot: 1}, {path: c, bus: nvme, slot: 2}", [1, 2]),
        ("{path: a}, {path: b, slot: 0}, {path: c}", [1, 0, 2]),
        ("{path: a, bus: virtio-scsi}, {path: b, bus: virtio-scsi, cdrom: true}", [0, 31]),
        ("{path: a, bus: sata, cdrom: true}, {path: b, bus: sata}, {path: c, bus: sata, slot: 5}", [4, 0, 5]),
    ],
)
def test_a_slot_of_its_own_keeps_a_disk_in_its_place(disks: str, found: list[int]) -> None:
    assert seats(loads(f"name: a\ndisks: [{disks}]\n").profile.disks) == found
