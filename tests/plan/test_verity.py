"""A root under dm-verity in a plan: the words of the command line, and the disks by which the guest finds it."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from sevlaunch.errors import HostError, ProfileError
from sevlaunch.flows.hosts import host_for
from sevlaunch.host.facts import BootFacts, UkiFacts, VerityFacts
from sevlaunch.host.model import Host
from sevlaunch.plan.command_line import argv
from sevlaunch.plan.plan import Plan
from sevlaunch.plan.resolve import resolve
from sevlaunch.profile.loader import loads
from tests.conftest import HOSTS
from tests.hash_trees import data_of, make_tree

HEX = "ab" * 32
DATA, TREE = "{path: /r.raw, read_only: true}", "{path: /t.raw, read_only: true}"
FACTS = VerityFacts(
    data="/r.raw",
    hashes="/t.raw",
    root_hash=HEX,
    algorithm="sha256",
    data_block_size=4096,
    hash_block_size=4096,
    data_blocks=1000,
    salt="5a5a",
    offset=0,
    start=4096,
)


def plan(
    verity: str = "{data: disk0, hash: disk1}",
    disks: str = f"[{DATA}, {TREE}]",
    facts: VerityFacts | None = FACTS,
    cmdline: str = ", cmdline: console=ttyS0",
) -> Plan:
    """The plan of such a root."""
    text = f"boot: {{kernel: /k, initrd: /i, verity: {verity}{cmdline}}}\ndisks: {disks}\n"
    host = replace(Host.load(HOSTS / "milan-qemu-11.1.json"), verity=facts)
    return resolve(loads(text, file="g.yaml"), host)


def appended(made: Plan) -> str:
    """What the kernel gets."""
    words = argv(made)
    return words[words.index("-append") + 1]


def test_systemd_is_told_where_root_and_tree_are() -> None:
    made = plan()
    assert appended(made) == (
        f"console=ttyS0 roothash={HEX} systemd.verity_root_data=/dev/disk/by-id/virtio-disk0 "
        "systemd.verity_root_hash=/dev/disk/by-id/virtio-disk1 root=/dev/mapper/root ro"
    )
    assert [disk.serial.value for disk in made.storage.disks if disk.serial] == ["disk0", "disk1"]
    opened = [word for word in argv(made) if ",node-name=disk" in word]
    assert len(opened) == 2
    assert all(",read-only=on," in word for word in opened)


def test_disks_keep_the_serial_numbers_that_they_have() -> None:
    made = plan(disks=f"[{DATA[:-1]}, serial: ROOT-1}}, {TREE}]")
    assert "systemd.verity_root_data=/dev/disk/by-id/virtio-ROOT-1 " in appended(made)


def test_a_tree_behind_its_data_has_an_offset() -> None:
    facts = replace(FACTS, hashes=None, offset=4096000, start=4100096)
    words = appended(plan("{data: disk0}", f"[{DATA}]", facts))
    assert "verity_root_data=/dev/disk/by-id/virtio-disk0 " in words
    assert (
        "verity_root_hash=/dev/disk/by-id/virtio-disk0 systemd.verity_root_options=hash-offset=4096000 root=" in words
    )


def test_words_that_the_profile_has_itself_are_not_said_twice() -> None:
    words = appended(plan(cmdline=", cmdline: 'ro root=/dev/mapper/root quiet'")).split()
    assert (words.count("ro"), words.count("root=/dev/mapper/root")) == (1, 1)


def test_a_kernel_is_told_the_whole_table() -> None:
    # Linux names virtio-blk disks in the order of their places; a disk of another bus has no such name.
    disks = f"[{TREE[:-1]}, slot: 2}}, {{path: /x, bus: nvme}}, {DATA}]"
    words = appended(plan("{data: disk2, hash: disk0, format: kernel}", disks))
    table = f"verity 1 /dev/vda /dev/vdb 4096 4096 1000 1 sha256 {HEX} 5a5a"
    assert words == f'console=ttyS0 dm-mod.create="root,,,ro,0 8000 {table}" root=/dev/dm-0 ro'
    unsalted = appended(plan("{data: disk2, hash: disk0, format: kernel}", disks, replace(FACTS, salt="")))
    assert f'{HEX} -" root' in unsalted


def test_a_root_hash_that_is_another_one_is_refused_by_name() -> None:
    with pytest.raises(ProfileError) as caught:
        plan(f"{{data: disk0, hash: disk1, root_hash: {'cd' * 32}}}")
    [problem] = caught.value.problems
    assert (problem.path, problem.location) == ("boot.verity.root_hash", "g.yaml:1:78")
    assert problem.message == f"the hash tree of disk0 has the root hash {HEX}, and boot.verity wants {'cd' * 32}"


def test_a_tree_that_can_t_be_read_is_refused() -> None:
    with pytest.raises(ProfileError) as caught:
        plan(facts=VerityFacts(data="/r.raw", hashes="/t.raw", problem="no verity superblock is there"))
    assert "no hash tree of disk0 can be read: no verity superblock is there" in str(caught.value.problems[0])


@pytest.mark.parametrize("facts", [None, replace(FACTS, data="/other")])
def test_a_host_that_nobody_looked_at_for_it_is_told(facts: VerityFacts | None) -> None:
    with pytest.raises(HostError) as caught:
        plan(facts=facts)
    assert "nobody has looked at the hash tree of disk0" in str(caught.value.problems[0])
    assert "Host.probe(verity=profile.verity)" in str(caught.value.problems[0])


@pytest.mark.parametrize(
    "facts", [None, VerityFacts(data="/r.raw", hashes="/t.raw", problem="No such file", missing=True)]
)
def test_a_profile_that_says_the_root_hash_needs_no_image_here(facts: VerityFacts | None) -> None:
    said = plan(f"{{data: disk0, hash: disk1, root_hash: {HEX}}}", facts=facts)
    assert appended(said) == appended(plan())


def test_the_images_are_looked_at_for_another_host_too(tmp_path: Path) -> None:
    data, tree = tmp_path / "r", tmp_path / "t"
    data.write_bytes(data_of(100_000 // 4096 * 4096))
    root_hash = make_tree(data, tree)
    text = "boot: {kernel: k, initrd: i, verity: {data: disk0, hash: disk1}}\n"
    text += "disks: [{path: r, read_only: true}, {path: t, read_only: true}]\n"
    loaded = loads(text, base=tmp_path)
    host = host_for(loaded.profile, HOSTS / "milan-qemu-11.1.json")
    assert f"roothash={root_hash} " in appended(resolve(loaded, host))
    again = tmp_path / "host.json"
    again.write_text(host.to_json())
    assert Host.load(again).verity == host.verity


@pytest.mark.parametrize(
    ("boot", "message"),
    [
        ("{kernel: /k, verity: {data: disk0, hash: disk1}}", "boot.verity: systemd's words for a root under dm-verity"),
        ("{from: disk0, credentials: {a: {text: x}}}", "boot.credentials: credentials are put behind the initrd, and"),
    ],
)
def test_what_is_for_an_initrd_is_refused_without_one(boot: str, message: str) -> None:
    taken = BootFacts(kernel="/taken", cmdline="quiet", places={"kernel": "/vmlinuz"})
    host = replace(Host.load(HOSTS / "milan-qemu-11.1.json"), verity=FACTS, boot=taken if "from" in boot else None)
    with pytest.raises(ProfileError) as caught:
        resolve(loads(f"boot: {boot}\ndisks: [{DATA}, {TREE}]\n", file="g.yaml"), host)
    assert message in str(caught.value.problems[0])


def test_a_unified_image_has_no_initrd_for_credentials() -> None:
    host = replace(Host.load(HOSTS / "milan-qemu-11.1.json"), boot=BootFacts(kernel="/k", uki=UkiFacts(initrd_bytes=1)))
    with pytest.raises(ProfileError) as caught:
        resolve(loads("boot: {from: disk0, credentials: {a: {text: x}}}\ndisks: [{path: /d}]\n", file="g.yaml"), host)
    assert "boot.credentials: the kernel is a unified image" in str(caught.value.problems[0])


def test_the_root_of_an_image_gives_way_to_the_one_under_verity() -> None:
    taken = BootFacts(kernel="/k", initrd="/i", cmdline="root=LABEL=x ro quiet", places={"kernel": "/vmlinuz"})
    host = replace(Host.load(HOSTS / "milan-qemu-11.1.json"), verity=FACTS, boot=taken)
    text = "boot: {from: disk2, verity: {data: disk0, hash: disk1}, cmdline_extra: x=y}\n"
    made = resolve(loads(f"{text}disks: [{DATA}, {TREE}, {{path: /d}}]\n", file="g.yaml"), host)
    words = appended(made).split()
    assert words[:3] == ["quiet", "x=y", f"roothash={HEX}"]
    assert words[-2:] == ["root=/dev/mapper/root", "ro"]
    assert not any("LABEL" in word for word in words)
    assert made.warnings == ()
