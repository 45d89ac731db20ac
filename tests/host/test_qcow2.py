"""What the guest sees of a qcow2 image is what is read of it, whatever is wrong with the file."""

from __future__ import annotations

import random
import struct
import subprocess
from io import BytesIO
from pathlib import Path

import pytest
from msgspec.structs import replace

from sevlaunch.errors import UsageError
from sevlaunch.host.ovmf import firmware_image
from sevlaunch.owner.firmware import read_firmware
from sevlaunch.qcow2 import Qcow2
from tests import needs
from tests.owner.images import ovmf

CLUSTER = 1 << 12


def qcow2(content: bytes, **header: int) -> bytes:
    """A qcow2 image of whole clusters, one L2 table, nothing compressed; ``header``: other values of its fields."""
    count = len(content) // CLUSTER
    fields = {"version": 3, "backing": 0, "bits": 12, "size": len(content), "crypt": 0, "l1_size": 1, "l1": CLUSTER}
    fields |= header
    head = struct.pack(
        ">4sIQIIQIIQ",
        b"QFI\xfb",
        fields["version"],
        fields["backing"],
        0,
        fields["bits"],
        fields["size"],
        fields["crypt"],
        fields["l1_size"],
        fields["l1"],
    )
    head = head.ljust(72, b"\0") + struct.pack(">Q", fields.get("incompatible", 0))
    l1 = struct.pack(">Q", 2 * CLUSTER | 1 << 63)
    l2 = b"".join(struct.pack(">Q", (3 + index) * CLUSTER | 1 << 63) for index in range(count))
    return b"".join(part.ljust(CLUSTER, b"\0") for part in (head, l1, l2)) + content


@pytest.mark.parametrize(
    "options", [[], ["-c"], ["-o", "cluster_size=4096", "-S", "4096"], ["-o", "compat=0.10"]], ids=" ".join
)
def test_it_reads_what_qemu_img_wrote(options: list[str], tmp_path: Path) -> None:
    program = needs.program("qemu-img", "qemu-utils")
    content = ovmf(size=1 << 20) + random.Random(1).randbytes(300_000 // 512 * 512) + bytes(1 << 17) + ovmf()
    raw, packed = tmp_path / "raw", tmp_path / "packed"
    raw.write_bytes(content)
    subprocess.run(
        [program, "convert", "-q", "-f", "raw", "-O", "qcow2", *options, str(raw), str(packed)], check=True, timeout=60
    )
    with packed.open("rb") as stream:
        image = Qcow2(stream)
        assert image.size == len(content)
        assert image.whole(len(content)) == content
        assert image.read(len(content) - 100, 1000) == content[-100:]
        with pytest.raises(ValueError, match="wanted at most"):
            image.whole(len(content) - 1)
    assert read_firmware(packed).sha256 == read_firmware(raw).sha256
    told = firmware_image(packed, "x")
    assert told.hashes_table
    assert told == replace(firmware_image(raw, "x"), format="qcow2")


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"version": 4}, "no qcow2 image"),
        ({"bits": 60}, "no qcow2 image"),
        ({"backing": 512}, "a backing file"),
        ({"crypt": 2}, "a key"),
        ({"incompatible": 4}, "features that are not known"),
        ({"l1": 1 << 40}, "ends too early"),
        ({"l1_size": 0}, "table is too short"),
        ({"size": 1 << 40}, "firmware has at most"),
    ],
)
def test_what_is_no_whole_image_is_told(header: dict[str, int], reason: str, tmp_path: Path) -> None:
    file = tmp_path / "x.qcow2"
    file.write_bytes(qcow2(ovmf(), **header))
    assert reason in firmware_image(file, "x").error
    with pytest.raises(UsageError, match=reason if "size" not in header else "wanted at most"):
        read_firmware(file)


def test_an_image_that_is_marked_as_dirty_is_read(tmp_path: Path) -> None:
    file = tmp_path / "x.qcow2"
    file.write_bytes(qcow2(ovmf(), incompatible=1))
    assert read_firmware(file).image == ovmf()


def test_no_damage_does_more_than_a_value_error() -> None:
    content, chance = qcow2(ovmf()), random.Random(7)
    for _ in range(2000):
        damaged = bytearray(content)
        for _ in range(chance.randrange(1, 6)):
            damaged[chance.choice((chance.randrange(120), chance.randrange(CLUSTER, 3 * CLUSTER)))] = chance.randrange(
                256
            )
        try:
            Qcow2(BytesIO(bytes(damaged))).whole(len(ovmf()))
        except ValueError:
            continue
