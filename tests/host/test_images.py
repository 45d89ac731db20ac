"""What stands in an image, by the magic of each format and as qemu-img makes it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from sevlaunch.host.images import image_facts, image_format, images_at
from tests import needs

MAGIC = {
    "qcow2": b"QFI\xfb",
    "vmdk": b"KDMV",
    "vhdx": b"vhdxfile",
    "vdi": bytes(0x40) + b"\x7f\x10\xda\xbe",
    "vpc": b"conectix",
}


@pytest.mark.parametrize("name", MAGIC)
def test_an_image_is_known_by_its_magic_and_by_nothing_else(name: str, tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(MAGIC[name] + bytes(4096))
    facts = image_facts(str(image))
    assert facts is not None
    assert (facts.format, facts.block_device, facts.size) == (name, False, len(MAGIC[name]) + 4096)
    image.write_bytes(b"\0" + MAGIC[name] + bytes(4096))
    moved = image_facts(str(image))
    assert moved is not None and moved.format == "raw"


@pytest.mark.parametrize("name", ["raw", "qcow2", "vmdk", "vhdx", "vdi", "vpc"])
def test_it_is_what_qemu_img_made(name: str, tmp_path: Path) -> None:
    program = needs.program("qemu-img", "qemu-utils")
    image = tmp_path / "disk.img"
    subprocess.run([program, "create", "-q", "-f", name, str(image), "8M"], check=True, timeout=60)
    facts = image_facts(str(image))
    assert facts is not None and facts.format == name


def test_a_virtual_pc_image_of_fixed_size_has_its_mark_at_the_end() -> None:
    assert image_format(bytes(512), b"conectix" + bytes(504)) == "vpc"


def test_what_is_no_image_is_not_looked_at_and_not_waited_for(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    (tmp_path / "empty").touch()
    paths = [str(fifo), "/dev/zero", str(tmp_path), str(tmp_path / "none"), "a\0b", str(tmp_path / "empty")]
    found = images_at(paths)
    assert list(found) == [str(tmp_path / "empty")]
    assert found[str(tmp_path / "empty")].format == "raw"
