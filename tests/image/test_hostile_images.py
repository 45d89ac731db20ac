"""Images that somebody made to read the host's files, or to fill its disks: refused, or harmless."""

from __future__ import annotations

import hashlib
import json
import random
import struct
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from sevlaunch.errors import ImageError
from sevlaunch.host.images import image_facts
from sevlaunch.image.fetch import fetch_image
from sevlaunch.image.inspection import inspect
from sevlaunch.image.store import list_images
from tests import needs
from tests.conftest import Command
from tests.guest.support import some_qemu
from tests.image.server import Server

SECRET = b"root:$6$secret:19000:0:99999:7:::\n"
# The fields of a qcow2 header: docs/interop/qcow2.txt.
AT = {"version": (4, ">I"), "bits": (20, ">I"), "size": (24, ">Q"), "l1_size": (36, ">I"), "l1_at": (40, ">Q")}


def made(file: Path, *options: str) -> Path:
    """A qcow2 image of 8 MiB, as qemu-img writes it."""
    command = [needs.program("qemu-img", "qemu-utils"), "create", "-q", "-f", "qcow2", *options, str(file), "8M"]
    subprocess.run(command, check=True)
    return file


def altered(file: Path, field: str, value: int) -> Path:
    """An image whose header says something else."""
    at, form = AT[field]
    content = bytearray(made(file).read_bytes())
    struct.pack_into(form, content, at, value)
    file.write_bytes(content)
    return file


def backed(base: Path) -> Path:
    """One that would show the guest a file of the host."""
    (base / "shadow").write_bytes(SECRET.ljust(512, b"\0"))
    return made(base / "x", "-b", str(base / "shadow"), "-F", "raw")


def with_data_file(base: Path) -> Path:
    """One whose content is in another file."""
    return made(base / "x", "-o", f"data_file={base}/data.raw,data_file_raw=on")


def descriptor(base: Path) -> Path:
    """A VMDK that is text, and names files."""
    text = '# Disk DescriptorFile\nversion=1\ncreateType="monolithicFlat"\nRW 1 FLAT "/etc/shadow" 0\n'
    (base / "x").write_text(text)
    return base / "x"


def page(base: Path) -> Path:
    """What a web site says instead of an image."""
    (base / "x").write_text("<!DOCTYPE html><html>Please log in</html>")
    return base / "x"


HOSTILE = {
    "backing-file": (backed, "needs another image below it"),
    "data-file": (with_data_file, "needs a file that its data is in"),
    "vmdk": (descriptor, "is a vmdk image"),
    "size": (lambda base: altered(base / "x", "size", 1 << 62), "for which its table has no place"),
    "table-elsewhere": (lambda base: altered(base / "x", "l1_at", 1 << 40), "its table is not in the file"),
    "table-of-gigabytes": (lambda base: altered(base / "x", "l1_size", 1 << 31), "for which its table has no place"),
    "clusters": (lambda base: altered(base / "x", "bits", 63), "clusters of 2^63 bytes"),
    "version": (lambda base: altered(base / "x", "version", 9), "its header says version 9"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_it_is_refused_when_it_is_fetched_and_when_it_is_a_file(
    kind: str, server: Server, cache: Path, sevlaunch: Command
) -> None:
    make, message = HOSTILE[kind]
    file = make(sevlaunch.base)
    content = file.read_bytes()
    with pytest.raises(ImageError) as caught:
        fetch_image(server.put("x.img", content), hashlib.sha256(content).hexdigest())
    assert message in caught.value.message
    assert list_images() == []
    profile = sevlaunch.base / "g.yaml"
    for more in ({}, {"overlay": "ephemeral"}, {"read_only": True}):
        profile.write_text(json.dumps({"accel": "tcg", "memory": "64M", "disks": [{"image": "./x", **more}]}))
        refused = sevlaunch("render", profile, *some_qemu(), check=3)
        assert message in refused.stderr and "disks.0.image" in refused.stderr


def test_a_web_page_is_told(server: Server, cache: Path, base: Path) -> None:
    content = page(base).read_bytes()
    with pytest.raises(ImageError, match="is a web page, and no image"):
        fetch_image(server.put("x.img", content), hashlib.sha256(content).hexdigest())


def test_random_headers_are_read_without_surprise(base: Path) -> None:
    fine = made(base / "fine").read_bytes()
    let_through = 0
    for seed in range(500):
        dice = random.Random(seed)
        content = bytearray(fine[: dice.choice((0, 4, 60, 71, 104, len(fine), len(fine)))])
        for _ in range(dice.randint(0, 4)):
            if len(content) > 4:
                content[dice.randrange(4, min(len(content), 112))] = dice.randrange(256)
        (base / "x").write_bytes(content)
        facts = image_facts(str(base / "x"))
        assert facts and facts.format == ("qcow2" if len(content) >= 4 else "raw"), seed
        with suppress(ImageError):
            inspect(base / "x", "x")
            # What is let through has its table in its file, and names no other.
            assert facts.virtual_size and not facts.leans_on and len(content) == len(fine), seed
            let_through += 1
    assert 0 < let_through < 500


def test_what_is_fine_stays_fine(base: Path) -> None:
    """Each way that qemu-img makes an image is one that QEMU opens."""
    for options in (
        (),
        ("-o", "compat=0.10"),
        ("-o", "cluster_size=512"),
        ("-o", "extended_l2=on"),
        ("-o", "compat=v3"),
    ):
        facts = image_facts(str(made(base / "fine", *options)))
        assert facts and not (facts.damage or facts.leans_on) and facts.virtual_size == 8 << 20
        (base / "fine").unlink()
