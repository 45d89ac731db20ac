"""Disks whose image is never written: how QEMU gets them, which images can be such, on each QEMU."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest
from msgspec.structs import replace

from sevlaunch.errors import ProfileError
from sevlaunch.host.images import image_facts, images_at
from sevlaunch.host.model import Host
from sevlaunch.plan.command_line import argv
from sevlaunch.plan.formats import format_plan
from sevlaunch.plan.plan import Plan
from sevlaunch.plan.resolve import resolve
from sevlaunch.profile.loader import loads
from tests import needs
from tests.conftest import HOSTS

# Of a qcow2 header of version 3: docs/interop/qcow2.txt.
BACKING_AT, SIZE_AT, INCOMPATIBLE_AT = 8, 24, 72
MIB = 1 << 20


@pytest.fixture
def milan() -> Host:
    """A recorded host."""
    return Host.load(HOSTS / "milan-qemu-10.0.json")


def qcow2(path: Path, *, size: int = MIB, backing: int = 0, features: int = 0) -> Path:
    """The header of a qcow2 image."""
    header = bytearray(struct.pack(">4sIQIIQIIQ", b"QFI\xfb", 3, backing, 0, 16, size, 0, 1, 1 << 16).ljust(512, b"\0"))
    struct.pack_into(">Q", header, INCOMPATIBLE_AT, features)
    path.write_bytes(header.ljust((1 << 16) + 8, b"\0"))
    return path


def plan_of(host: Host, disks: str, folder: Path) -> Plan:
    """The plan of a guest with these disks, on a host that looked at their images."""
    loaded = loads(f"name: a\ndisks: [{disks}]\n", base=folder)
    return resolve(loaded, replace(host, images=images_at(loaded.profile.images)))


def block_devices(plan: Plan) -> list[dict[str, str]]:
    """The options of the disks' block devices."""
    words = [word for word in argv(plan) if "node-name=disk" in word]
    return [dict(part.partition("=")[::2] for part in word.split(",")) for word in words]


def test_what_is_written_goes_on_top_and_no_header_is_believed(milan: Host, tmp_path: Path) -> None:
    image = qcow2(tmp_path / "noble.img")
    plan = plan_of(milan, "{image: noble.img, cache: none, aio: native, size: 20G}", tmp_path)
    (found,) = block_devices(plan)
    assert found["driver"] == "qcow2"
    assert found["file.filename"] == str(plan.state_folder / "disk0.qcow2")
    assert (found["backing.driver"], found["backing.file.filename"]) == ("qcow2", str(image))
    assert (found["backing.read-only"], found["read-only"]) == ("on", "off")
    assert found["backing.backing.driver"] == "null-co"
    assert (found["file.aio"], found["backing.file.aio"]) == ("native", "native")
    assert [size.value for overlay in plan.storage.overlays if (size := overlay.size)] == [20 << 30]


def test_an_image_that_nobody_writes_to_has_nothing_on_top(milan: Host, tmp_path: Path) -> None:
    qcow2(tmp_path / "a.img")
    (tmp_path / "b.iso").write_bytes(bytes(4096))
    plan = plan_of(milan, "{image: a.img, read_only: true}, {image: b.iso, cdrom: true, bus: sata}", tmp_path)
    first, second = block_devices(plan)
    assert (first["read-only"], first["file.filename"], first["backing.driver"]) == (
        "on",
        str(tmp_path / "a.img"),
        "null-co",
    )
    assert (second["read-only"], second["driver"]) == ("on", "raw")
    assert plan.storage.overlays == () and plan.needs.programs == ()


def test_the_image_is_read_and_qemu_img_is_needed(milan: Host, tmp_path: Path) -> None:
    image = qcow2(tmp_path / "a.img")
    plan = plan_of(milan, "{image: a.img}", tmp_path)
    (needed,) = (file for file in plan.needs.files if file.what == "disk")
    assert (needed.path, needed.write) == (str(image), False)
    (program,) = plan.needs.programs
    assert program.program == str(Path(plan.binary.value).with_name("qemu-img"))
    assert "qemu-utils" in program.remedy


def test_the_reasons_are_told(milan: Host, tmp_path: Path) -> None:
    qcow2(tmp_path / "a.img")
    told = format_plan(plan_of(milan, "{image: a.img}, {image: a.img, overlay: ephemeral}", tmp_path), "explain")
    assert "the image is never written" in told
    assert "the image is not written: what the guest writes is kept beside it" in told
    assert "-add-fd fd=10,set=10" in told


@pytest.mark.parametrize(
    ("disk", "key", "message", "hint"),
    [
        ("{image: backed.img}", "image", "needs another image below it (backing file)", "qemu-img convert -O qcow2"),
        ("{image: data.img}", "image", "needs a file that its data is in (data-file)", "qemu-img convert -O qcow2"),
        ("{image: a.vmdk}", "image", "is a vmdk image", "qemu-img convert -O qcow2"),
        ("{image: fine.img, size: 512K}", "size", "has 1M, and the disk would have 512K", "leave size out"),
        ("{image: empty.raw}", "image", "has no content", "get it again"),
        ("{image: backed.img, read_only: true}", "image", "needs another image", "qemu-img convert -O qcow2"),
    ],
)
def test_what_can_not_stand_below_is_refused_with_the_way_out(
    milan: Host, tmp_path: Path, disk: str, key: str, message: str, hint: str
) -> None:
    qcow2(tmp_path / "fine.img")
    qcow2(tmp_path / "backed.img", backing=512)
    qcow2(tmp_path / "data.img", features=4)
    (tmp_path / "a.vmdk").write_bytes(b"KDMV" + bytes(508))
    (tmp_path / "empty.raw").touch()
    with pytest.raises(ProfileError) as caught:
        plan_of(milan, disk, tmp_path)
    (problem,) = caught.value.problems
    assert message in problem.message and hint in problem.hint
    assert problem.path == f"disks.0.{key}"


def test_headers_are_read_as_qemu_img_writes_them(tmp_path: Path) -> None:
    program = needs.program("qemu-img", "qemu-utils")
    base, top, data = (tmp_path / name for name in ("base.qcow2", "top.qcow2", "data.qcow2"))
    for command in (
        [str(base), "8M"],
        ["-b", str(base), "-F", "qcow2", str(top), "9M"],
        ["-o", f"data_file={tmp_path}/data.raw", str(data), "10M"],
    ):
        subprocess.run([program, "create", "-q", "-f", "qcow2", *command], check=True)
    found = [image_facts(str(image)) for image in (base, top, data)]
    assert [facts.virtual_size for facts in found if facts] == [8 * MIB, 9 * MIB, 10 * MIB]
    assert [bool(facts.leans_on) for facts in found if facts] == [False, True, True]
