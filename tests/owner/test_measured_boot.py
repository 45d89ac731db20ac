"""What stands behind the kernel of a measured boot is in its digest: each change is noticed, by its name."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from sevlaunch.image.initrd import joined_initrd
from tests.conftest import HOSTS, Command
from tests.hash_trees import BLOCK, data_of, flip, make_tree
from tests.owner.images import ovmf

MILAN = HOSTS / "milan-qemu-11.1.json"
CMDLINE = "console=ttyS0"
DISKS = {"data": "disk0", "hash": "disk1"}


@pytest.fixture
def profile(base: Path) -> Path:
    """An SNP profile whose boot is measured, with two credentials."""
    (base / "ovmf.fd").write_bytes(ovmf())
    for name in ("kernel", "initrd", "motd"):
        (base / name).write_bytes(f"the {name}".encode())
    file = base / "guest.yaml"
    file.write_text(
        "boot:\n"
        f"  {{kernel: kernel, initrd: initrd, cmdline: {CMDLINE}, credentials: {{motd: motd, role: {{text: web}}}}}}\n"
        "firmware: {image: ovmf.fd}\n"
        "security: {type: sev-snp, kernel_hashes: true}\n"
    )
    return file


def with_root(profile: Path) -> str:
    """Put its root under dm-verity; the root hash."""
    data, tree = (profile.parent / name for name in ("root", "tree"))
    data.write_bytes(data_of(300 * BLOCK))
    text = profile.read_text().replace("{kernel: kernel,", "{verity: {data: disk0, hash: disk1}, kernel: kernel,")
    profile.write_text(text + "disks: [{path: root, read_only: true}, {path: tree, read_only: true}]\n")
    return make_tree(data, tree)


def digest(sevlaunch: Command, *words: str | Path) -> str:
    """What `owner digest` says."""
    return sevlaunch("owner", "digest", *words, "--format", "hex").stdout.strip()


def lock(sevlaunch: Command, profile: Path, name: str) -> Path:
    """A lock file of the profile as it is now."""
    file = profile.parent / name
    file.write_text(sevlaunch("render", profile, "--host", MILAN, "--lock").stdout)
    return file


def differences(sevlaunch: Command, one: Path, other: Path) -> dict[str, tuple[Any, Any]]:
    """What `owner compare` names."""
    found = sevlaunch("owner", "compare", one, other, "--format", "json", check=1).json["differences"]
    return {entry["field"]: (entry["first"], entry["second"]) for entry in found}


def test_the_digest_is_that_of_the_initrd_with_its_credentials(profile: Path, base: Path, sevlaunch: Command) -> None:
    joined = base / "joined"
    joined.write_bytes(b"".join(joined_initrd(base / "initrd", {"motd": b"the motd", "role": b"web"})))
    by_files = ("--type", "sev-snp", "--firmware", base / "ovmf.fd", "--kernel", base / "kernel", "--cmdline", CMDLINE)
    of_profile = digest(sevlaunch, profile)
    assert of_profile == digest(sevlaunch, *by_files, "--initrd", joined)
    assert of_profile != digest(sevlaunch, *by_files, "--initrd", base / "initrd")
    hashed = hashlib.sha256(joined.read_bytes()).hexdigest()
    assert of_profile == digest(sevlaunch, profile, "--initrd-hash", hashed)
    # An owner's own copy of the initrd gets the credentials, too.
    copy = base / "copy"
    copy.write_bytes((base / "initrd").read_bytes())
    (base / "initrd").unlink()
    assert of_profile == digest(sevlaunch, profile, "--initrd", copy)


def test_the_inputs_name_each_credential(profile: Path, sevlaunch: Command) -> None:
    found = sevlaunch("owner", "digest", profile, "--format", "json").json["inputs"]
    hashes = {entry["name"]: entry["sha256"] for entry in found}
    assert hashes["credential motd"] == hashlib.sha256(b"the motd").hexdigest()
    assert hashes["credential role"] == hashlib.sha256(b"web").hexdigest()
    assert hashes["initrd"] == hashlib.sha256(b"the initrd").hexdigest()
    assert len({hashes["initrd"], hashes["initrd with credentials"]}) == 2


@pytest.mark.parametrize(
    ("file", "field"), [("motd", "credentials.motd"), ("initrd", "initrd.sha256"), ("kernel", "kernel.sha256")]
)
def test_one_byte_changed_is_one_line_and_another_digest(
    file: str, field: str, profile: Path, sevlaunch: Command
) -> None:
    before = lock(sevlaunch, profile, "before.lock")
    changed = profile.parent / file
    content = changed.read_bytes()
    changed.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    found = differences(sevlaunch, before, lock(sevlaunch, profile, "after.lock"))
    assert set(found) == {field, "digests.launch"}
    assert found[field][0] == hashlib.sha256(content).hexdigest()


def test_a_credential_more_or_less_is_named(profile: Path, sevlaunch: Command) -> None:
    before = lock(sevlaunch, profile, "before.lock")
    profile.write_text(profile.read_text().replace(", role: {text: web}", ""))
    found = differences(sevlaunch, before, lock(sevlaunch, profile, "after.lock"))
    assert found["credentials.role"] == (hashlib.sha256(b"web").hexdigest(), None)
    assert set(found) == {"credentials.role", "digests.launch"}


def test_a_lock_without_credentials_has_none(profile: Path, sevlaunch: Command) -> None:
    profile.write_text(profile.read_text().replace("credentials: {motd: motd, role: {text: web}}", "order: []"))
    locked = json.loads(lock(sevlaunch, profile, "x.lock").read_text())
    assert (locked["credentials"], locked["root_hash"]) == ({}, None)


def words_of(root_hash: str) -> str:
    """The command line of such a root."""
    disks = (
        "systemd.verity_root_data=/dev/disk/by-id/virtio-disk0 systemd.verity_root_hash=/dev/disk/by-id/virtio-disk1"
    )
    return f"{CMDLINE} roothash={root_hash} {disks} root=/dev/mapper/root ro"


def test_the_root_hash_is_in_the_digest_and_in_the_lock(profile: Path, sevlaunch: Command) -> None:
    without = digest(sevlaunch, profile)
    root_hash = with_root(profile)
    of_profile = digest(sevlaunch, profile)
    assert of_profile != without
    assert of_profile == digest(sevlaunch, profile, "--cmdline", words_of(root_hash))
    inputs = sevlaunch("owner", "digest", profile, "--format", "json").json["inputs"]
    assert {entry["name"]: entry["value"] for entry in inputs}["root hash"] == root_hash
    locked = json.loads(lock(sevlaunch, profile, "x.lock").read_text())
    assert (locked["root_hash"], locked["cmdline"]["text"]) == (root_hash, words_of(root_hash))
    assert locked["digests"]["launch"] == of_profile


def test_an_owner_who_knows_the_root_hash_needs_no_image(profile: Path, sevlaunch: Command) -> None:
    root_hash = with_root(profile)
    of_profile = digest(sevlaunch, profile)
    for name in ("root", "tree"):
        (profile.parent / name).unlink()
    said = (profile, "--set", f"boot.verity.root_hash={root_hash}")
    assert digest(sevlaunch, *said) == of_profile
    refused = sevlaunch("owner", "digest", profile, check=2).stderr
    assert "no hash tree of disk0 " in refused
    assert "No such file or directory" in refused


def test_another_image_is_one_line_and_another_digest(profile: Path, sevlaunch: Command) -> None:
    root_hash = with_root(profile)
    before = lock(sevlaunch, profile, "before.lock")
    data = profile.parent / "root"
    flip(data, 5 * BLOCK)
    (profile.parent / "tree").unlink()
    other = make_tree(data, profile.parent / "tree")
    found = differences(sevlaunch, before, lock(sevlaunch, profile, "after.lock"))
    assert found["root_hash"] == (root_hash, other)
    assert set(found) == {"root_hash", "digests.launch"}


@pytest.mark.parametrize("word", ["console=ttyS1", "quiet"])
def test_another_command_line_is_named_beside_a_root_hash(word: str, profile: Path, sevlaunch: Command) -> None:
    with_root(profile)
    before = lock(sevlaunch, profile, "before.lock")
    profile.write_text(profile.read_text().replace(CMDLINE, word))
    assert set(differences(sevlaunch, before, lock(sevlaunch, profile, "after.lock"))) == {
        "cmdline.text",
        "digests.launch",
    }


@pytest.mark.parametrize(
    ("file", "offset", "message"),
    [
        ("root", 299 * BLOCK, "disk0 was changed: block 299 is not what the hash tree on disk1 says"),
        ("tree", 2 * BLOCK, "the hash tree on disk1 was changed: block 0 of its level 0"),
    ],
)
@pytest.mark.parametrize("command", ["owner digest", "render --host {} --lock"])
def test_one_byte_of_the_root_is_refused_by_name(
    command: str, file: str, offset: int, message: str, profile: Path, sevlaunch: Command
) -> None:
    with_root(profile)
    flip(profile.parent / file, offset)
    assert message in sevlaunch(*command.format(MILAN).split(), profile, check=2).stderr


def test_a_root_hash_of_another_tree_is_refused_by_name(profile: Path, sevlaunch: Command) -> None:
    root_hash = with_root(profile)
    said = ("--set", f"boot.verity.root_hash={'ab' * 32}")
    message = f"the hash tree of disk0 has the root hash {root_hash}, and boot.verity wants {'ab' * 32}"
    assert message in sevlaunch("owner", "digest", profile, *said, check=2).stderr
    refused = sevlaunch("render", profile, "--host", MILAN, *said, check=3).stderr
    assert f"--set {said[1]}: boot.verity.root_hash: {message}" in refused
