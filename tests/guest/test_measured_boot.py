"""A measured boot in a real Linux: what the guest itself sees of what is measured."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import needs
from tests.conftest import ROOT, VERSIONS, Command, qemu_binary_of, wait_for_console
from tests.guest.support import some_qemu
from tests.guest.test_demo_guest import LIMIT, said
from tests.hash_trees import BLOCK, flip

sys.path.insert(0, str(ROOT / "scripts"))

from demo_initrd import Entry, archive

pytestmark = pytest.mark.long

REGULAR, FOLDER = 0o100755, 0o040755
LIBRARY = re.compile(rb"^\t(?:\S+ => )?(/\S+) \(0x", re.MULTILINE)
GREETING = "hello from a measured root"
SEEN = GREETING.ljust(32, "!")


@pytest.mark.parametrize("version", VERSIONS)
def test_the_kernel_unpacks_the_credentials_behind_the_initrd(version: str, demo: Path, sevlaunch: Command) -> None:
    (sevlaunch.base / "motd").write_text("hello from the profile\n")
    credentials = f"boot.credentials={{motd: {sevlaunch.base / 'motd'}, a.key: {{text: k}}}}"
    sevlaunch("up", demo, "--set", f"qemu.binary={qemu_binary_of(version)}", "--set", credentials)
    console = wait_for_console(sevlaunch, "demo", "demo: ready", limit=LIMIT)
    assert said(console, "credential") == ["a.key 400 0:0 0 k", "motd 400 0:0 0 hello from the profile"]
    sevlaunch("down", "demo", "--now")
    assert sevlaunch.left_behind() == []


def with_veritysetup(base: Path) -> Path:
    """The demo guest's initrd with this machine's veritysetup behind it, which it then opens its root with."""
    program = needs.program("veritysetup", "cryptsetup-bin")
    loaded = subprocess.run(["ldd", program], capture_output=True, check=True, timeout=60).stdout
    libraries = [Path(found[1].decode()) for found in LIBRARY.finditer(loaded)]
    loader = next(library for library in libraries if library.name.startswith("ld-linux"))
    members = [Entry("bin/veritysetup", REGULAR, Path(program).read_bytes())]
    members += [Entry(f"lib/{one.name}", REGULAR, one.read_bytes()) for one in libraries if one != loader]
    members += [Entry("lib64", FOLDER), Entry(f"lib64/{loader.name}", REGULAR, loader.read_bytes())]
    initrd = base / "with-veritysetup"
    initrd.write_bytes((needs.demo_guest() / "initrd.img").read_bytes() + b"".join(archive(members)))
    return initrd


@pytest.fixture
def root(demo: Path, sevlaunch: Command) -> Path:
    """A profile whose root is under dm-verity, which begins with a greeting; the image is root.raw beside it."""
    content = GREETING.encode().ljust(32, b"!") + b"x" * (100 * BLOCK)
    (sevlaunch.base / "root.raw").write_bytes(content.ljust(200 * BLOCK, b"\0"))
    file = sevlaunch.base / "measured.yaml"
    file.write_text(
        f"extends: {demo}\n"
        f"boot: {{initrd: {with_veritysetup(sevlaunch.base)}, verity: {{data: disk0, hash: disk1}}}}\n"
        "disks: [{path: root.raw, read_only: true}, {path: root.raw.verity, read_only: true}]\n"
    )
    sevlaunch("image", "verity", sevlaunch.base / "root.raw")
    return file


def booted(sevlaunch: Command, profile: Path, *words: str) -> list[str]:
    """What the guest says of its root."""
    sevlaunch("up", profile, *some_qemu(), *words)
    console = wait_for_console(sevlaunch, "measured", "demo: ready", limit=LIMIT)
    sevlaunch("down", "measured", "--now")
    return said(console, "root")


def test_a_guest_opens_its_root_by_the_root_hash(root: Path, sevlaunch: Command) -> None:
    assert booted(sevlaunch, root) == [SEEN, "read", "status verified"]
    assert sevlaunch.left_behind() == []


def test_a_tree_behind_the_data_is_opened_as_well(root: Path, sevlaunch: Command) -> None:
    sevlaunch("image", "verity", root.parent / "root.raw", "--append")
    text = root.read_text().replace(", hash: disk1", "").replace(", {path: root.raw.verity, read_only: true}", "")
    root.write_text(text)
    assert booted(sevlaunch, root)[-1] == "status verified"


def test_one_byte_of_the_image_keeps_the_guest_from_starting_and_else_from_reading_it(
    root: Path, sevlaunch: Command
) -> None:
    image = root.parent / "root.raw"
    at = image.read_bytes().rindex(b"x" * BLOCK)
    flip(image, at)
    refused = sevlaunch("up", root, *some_qemu(), check=4).stderr
    assert f"disk0 was changed: block {at // BLOCK} is not what the hash tree on disk1 says" in refused
    assert sevlaunch.left_behind() == []
    found = booted(sevlaunch, root, "--no-verity-check")
    assert found == [SEEN, "unreadable", "status corrupted"]


def test_one_byte_of_the_tree_keeps_the_guest_from_starting_and_else_from_opening_it(
    root: Path, sevlaunch: Command
) -> None:
    tree = root.parent / "root.raw.verity"
    root_hash = sevlaunch("render", root, *some_qemu(), "--format", "lines").stdout.partition("roothash=")[2][:64]
    # The block at the top.
    flip(tree, BLOCK)
    root.write_text(root.read_text().replace("hash: disk1", f"hash: disk1, root_hash: {root_hash}"))
    refused = sevlaunch("up", root, *some_qemu(), check=3).stderr
    assert "boot.verity.root_hash: the hash tree of disk0 has the root hash " in refused
    assert f"and boot.verity wants {root_hash}" in refused
    flip(tree, BLOCK)
    # The host changes it behind sevlaunch's back: between the look and the start.
    sevlaunch("up", root, *some_qemu(), "--no-verity-check", "--paused")
    flip(tree, BLOCK)
    sevlaunch("resume", "measured")
    console = wait_for_console(sevlaunch, "measured", "demo: ready", limit=LIMIT)
    assert not any(GREETING in line for line in said(console, "root"))
    assert any("refused" in line or "corrupted" in line for line in said(console, "root"))
