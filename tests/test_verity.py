"""Hash trees: cryptsetup's veritysetup makes them, and judges as sevlaunch does."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from sevlaunch.errors import HostError
from sevlaunch.host.verity import check_verity, opened_disk, verity_facts
from sevlaunch.verity import ALIGNMENT, SUPERBLOCK_BYTES, Difference, Superblock, Tree, find_appended
from tests.hash_trees import BLOCK, data_of, flip, make_tree, veritysetup

NAMES = ("disk0", "disk1")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Where an image is."""
    return tmp_path / "data"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Where its tree is."""
    return tmp_path / "tree"


@pytest.mark.parametrize(
    ("blocks", "options"),
    [
        (1, ()),
        (2, ()),
        (128, ()),
        (129, ()),
        (1000, ()),
        (300, ("--hash-block-size=512", "--data-block-size=512")),
        (300, ("--hash-block-size=1024", "--data-block-size=4096")),
        (65, ("--hash=sha512",)),
        (200, ("--salt", "-")),
        (200, ("--salt", "00" * 256)),
    ],
)
def test_the_root_hash_is_that_of_veritysetup(blocks: int, options: tuple[str, ...], data: Path, tree: Path) -> None:
    size = 512 if "--data-block-size=512" in options else BLOCK
    data.write_bytes(data_of(blocks * size))
    root_hash = make_tree(data, tree, *options)
    facts = verity_facts(str(data), str(tree))
    assert (facts.problem, facts.root_hash, facts.data_blocks) == ("", root_hash, blocks)
    check_verity(str(data), str(tree), root_hash, names=NAMES)


def changes(blocks: int) -> list[tuple[str, int, str]]:
    """A byte of each part: file, offset, and what is said of it. The tree has 512-byte blocks of 16 digests."""
    return [
        ("data", 0, "disk0 was changed: block 0 is not what"),
        ("data", blocks * 512 - 1, f"disk0 was changed: block {blocks - 1} is not what"),
        ("tree", 512, "has the root hash"),
        ("tree", 1023, "has the root hash"),
        ("tree", 1024, "disk1 was changed: block 0 of its level 1 is not what the level above"),
        ("tree", 512 * 4, "disk1 was changed: block 0 of its level 0 is not what the level above"),
        ("tree", 512 * 23 - 1, "disk1 was changed: block 18 of its level 0 is not what the level above"),
    ]


@pytest.mark.parametrize(("file", "offset", "message"), changes(300))
def test_one_byte_is_noticed_and_named(file: str, offset: int, message: str, data: Path, tree: Path) -> None:
    # 300 blocks, 19 blocks of digests, 2 above them, the root: behind the superblock, from the root on.
    data.write_bytes(data_of(300 * 512))
    root_hash = make_tree(data, tree, "--hash-block-size=512", "--data-block-size=512")
    assert tree.stat().st_size == 512 * (1 + 1 + 2 + 19)
    flip({"data": data, "tree": tree}[file], offset)
    with pytest.raises(HostError, match=message):
        check_verity(str(data), str(tree), root_hash, names=NAMES)
    veritysetup("verify", data, tree, root_hash, check=2)


def test_what_is_behind_the_last_digest_has_to_be_zero(data: Path, tree: Path) -> None:
    data.write_bytes(data_of(2 * BLOCK))
    make_tree(data, tree)
    flip(tree, 2 * BLOCK - 1)
    with opened_disk(str(data)) as content, opened_disk(str(tree)) as hashes, pytest.raises(Difference) as caught:
        Tree(content, hashes, 0).check()
    assert caught.value.level == 0


@pytest.mark.parametrize("blocks", [1, 2, 127, 128, 129, 2000])
def test_a_tree_behind_the_data_is_found(blocks: int, data: Path) -> None:
    data.write_bytes(data_of(blocks * BLOCK))
    root_hash = make_tree(data, data, f"--hash-offset={blocks * BLOCK}", f"--data-blocks={blocks}")
    with opened_disk(str(data)) as content:
        assert find_appended(content) == blocks * BLOCK
    facts = verity_facts(str(data), None)
    assert (facts.root_hash, facts.offset) == (root_hash, blocks * BLOCK)
    check_verity(str(data), None, root_hash, names=NAMES)


def superblock(**changed: object) -> bytes:
    """A superblock in the spelling of cryptsetup's struct verity_sb."""
    values: dict[str, object] = {"signature": b"verity\0\0", "version": 1, "hash_type": 1, "uuid": bytes(16)}
    values |= {"algorithm": b"sha256", "data_block": 4096, "hash_block": 4096, "blocks": 2, "salt_size": 4}
    values |= {"salt": b"salt", **changed}
    return struct.pack("<8sII16s32sIIQH6s256s168s", *list(values.values())[:9], b"", values["salt"], b"")


def test_a_superblock_is_read() -> None:
    assert len(superblock()) == SUPERBLOCK_BYTES
    assert Superblock.from_bytes(superblock()) == (bytes(16), "sha256", 4096, 4096, 2, b"salt")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"signature": b"verity\0\1"}, "no verity superblock is there"),
        ({"version": 2}, "of version 2 and hash type 1"),
        ({"hash_type": 0}, "of version 1 and hash type 0"),
        ({"algorithm": b"sha1"}, "a hash tree of 'sha1': wanted sha256 or sha512"),
        ({"algorithm": b"\xff\n"}, r"a hash tree of '\\\\xff\\n'"),
        ({"data_block": 8192}, "verity blocks of 8192 and 4096 bytes"),
        ({"hash_block": 4095}, "verity blocks of 4096 and 4095 bytes"),
        ({"blocks": 0}, "for 0 blocks"),
        ({"blocks": 1 << 63}, "for 9223372036854775808 blocks"),
        ({"blocks": 3}, "of 12288 bytes of data, and there are 8192"),
        ({"salt_size": 257}, "a salt of 257 bytes"),
    ],
)
def test_a_superblock_that_can_t_be_is_refused(
    changed: dict[str, object], message: str, data: Path, tree: Path
) -> None:
    data.write_bytes(bytes(2 * BLOCK))
    tree.write_bytes(superblock(**changed).ljust(2 * BLOCK, b"\0"))
    with opened_disk(str(data)) as content, opened_disk(str(tree)) as hashes, pytest.raises(ValueError, match=message):
        Tree(content, hashes, 0)
    facts = verity_facts(str(data), str(tree))
    assert facts.problem
    assert not facts.missing


def test_a_tree_that_is_cut_short_is_refused(data: Path, tree: Path) -> None:
    data.write_bytes(data_of(2 * BLOCK))
    make_tree(data, tree)
    tree.write_bytes(tree.read_bytes()[:-1])
    assert verity_facts(str(data), str(tree)).problem == "a hash tree that ends at byte 8192, and there are 8191"


def test_what_is_no_tree_is_told(data: Path, tree: Path) -> None:
    assert verity_facts(str(data), None).missing
    data.write_bytes(bytes(64 * BLOCK))
    assert (
        verity_facts(str(data), None).problem == f"no verity superblock is appended at a multiple of {ALIGNMENT} bytes"
    )
    tree.write_bytes(b"QFI\xfb\0\0\0\2" + b"\xff" * 100)
    assert "qcow2" in verity_facts(str(data), str(tree)).problem
    tree.write_bytes(b"KDMV" + bytes(1000))
    assert verity_facts(str(data), str(tree)).problem == "a vmdk image: wanted raw or qcow2"
    assert verity_facts(str(data), str(data.parent)).problem == "Is a directory"
