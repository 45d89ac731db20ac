"""`sevlaunch image verity`: the same image gives the same tree, which veritysetup verifies."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from sevlaunch.errors import ImageError
from sevlaunch.image.verity import make_hash_tree
from tests import needs
from tests.conftest import Command
from tests.hash_trees import BLOCK, data_of, veritysetup

SIZE = 300 * BLOCK
JSON = ("--format", "json")


@pytest.fixture
def image(base: Path) -> Path:
    """A raw image."""
    needs.program("veritysetup", "cryptsetup-bin")
    file = base / "root.raw"
    file.write_bytes(data_of(SIZE))
    return file


def test_a_tree_is_made_beside_the_image_and_verifies(image: Path, sevlaunch: Command) -> None:
    found = sevlaunch("image", "verity", image, *JSON).json
    tree = image.with_name("root.raw.verity")
    assert (found["file"], found["appended"], found["offset"], found["data_blocks"]) == (str(tree), False, 0, 300)
    assert found["salt"] == hashlib.sha256(data_of(SIZE)).hexdigest()
    veritysetup("verify", image, tree, found["root_hash"])
    assert image.read_bytes() == data_of(SIZE)
    assert sorted(file.name for file in image.parent.iterdir()) == ["root.raw", "root.raw.verity", "run"]
    again = image.with_name("again")
    text = sevlaunch("image", "verity", image, "--output", again).stdout
    assert again.read_bytes() == tree.read_bytes()
    assert text.startswith(f"{image}: root hash {found['root_hash']}\n  hash tree in {again}\n")
    assert "exists already" in sevlaunch("image", "verity", image, check=4).stderr


def test_a_tree_is_put_behind_the_data(image: Path, sevlaunch: Command) -> None:
    beside = sevlaunch("image", "verity", image, *JSON).json
    found = sevlaunch("image", "verity", image, "--append", *JSON).json
    assert (found["root_hash"], found["offset"], found["appended"]) == (beside["root_hash"], SIZE, True)
    assert image.read_bytes() == data_of(SIZE) + image.with_name("root.raw.verity").read_bytes()
    veritysetup("verify", image, image, found["root_hash"], f"--hash-offset={SIZE}")
    refused = sevlaunch("image", "verity", image, "--append", check=4).stderr
    assert "has a hash tree already" in refused
    assert f"truncate -s {SIZE} " in refused


def test_a_qcow2_image_has_the_tree_of_what_its_guest_sees(image: Path, sevlaunch: Command) -> None:
    program = needs.program("qemu-img", "qemu-utils")
    packed = image.with_suffix(".qcow2")
    subprocess.run([program, "convert", "-q", "-c", "-O", "qcow2", str(image), str(packed)], check=True, timeout=60)
    sevlaunch("image", "verity", image)
    sevlaunch("image", "verity", packed)
    assert packed.with_name("root.qcow2.verity").read_bytes() == image.with_name("root.raw.verity").read_bytes()
    refused = sevlaunch("image", "verity", packed, "--append", check=4).stderr
    assert "is a qcow2 image, behind whose data nothing can be put" in refused
    assert "qemu-img convert -O raw" in refused


def test_salt_and_uuid_can_be_given(image: Path, sevlaunch: Command) -> None:
    uuid = "01234567-89ab-cdef-0123-456789abcdef"
    found = sevlaunch("image", "verity", image, "--salt", "AB" * 16, "--uuid", uuid, *JSON).json
    assert (found["salt"], found["uuid"]) == ("ab" * 16, uuid)
    dumped = veritysetup("dump", found["file"])
    assert uuid in dumped
    assert "ab" * 16 in dumped


@pytest.mark.parametrize(
    ("words", "message", "code"),
    [
        (("--salt", "abc"), "--salt: wanted up to 256 bytes in hexadecimal, found 'abc'", 2),
        (("--uuid", "1"), "--uuid: wanted a UUID", 2),
        (("--append", "--output", "x"), "--append puts the tree into the image", 2),
    ],
)
def test_wrong_options_are_told(
    words: tuple[str, ...], message: str, code: int, image: Path, sevlaunch: Command
) -> None:
    assert message in sevlaunch("image", "verity", image, *words, check=code).stderr


def test_an_image_that_is_none_is_told(image: Path, sevlaunch: Command) -> None:
    assert "No such file" in sevlaunch("image", "verity", image.with_name("none"), check=4).stderr
    image.write_bytes(data_of(SIZE - 1))
    refused = sevlaunch("image", "verity", image, check=4).stderr
    assert "of which a hash tree would leave out the last" in refused
    assert "truncate -s %4096" in refused
    assert sorted(file.name for file in image.parent.iterdir()) == ["root.raw", "run"]


def test_a_missing_program_is_named_with_its_package(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sevlaunch.image.verity._FOLDERS", "")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ImageError, match="veritysetup is missing, which makes hash trees") as caught:
        make_hash_tree(image)
    assert "apt install cryptsetup-bin" in caught.value.hint


def test_what_veritysetup_complains_of_is_shown(image: Path, sevlaunch: Command, base: Path) -> None:
    fake = base / "bin/veritysetup"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho 'no room \\033[31mhere' >&2\nexit 3\n")
    fake.chmod(0o755)
    sevlaunch.environment["PATH"] = f"{fake.parent}:{os.environ['PATH']}"
    refused = sevlaunch("image", "verity", image, "--append", check=4).stderr
    assert "made no hash tree of" in refused
    assert "no room" in refused
    assert "\033" not in refused
    assert image.read_bytes() == data_of(SIZE)
    fake.write_text('#!/bin/sh\necho "Root hash: 00"\nfor last; do :; done\n: > "$last"\n')
    assert "says that the root hash is 00" in sevlaunch("image", "verity", image, check=4).stderr
