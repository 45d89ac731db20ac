"""Reading ext2, ext3, ext4 and FAT: all that their own programs put there, and nothing else."""

from __future__ import annotations

import io
import os
from pathlib import Path
from random import Random

import pytest

from sevlaunch.contents.ext4 import Ext4
from sevlaunch.contents.fat import Fat
from sevlaunch.contents.filesystem import Unread, file_system
from sevlaunch.contents.volume import Raw, Whole
from tests import needs
from tests.contents.disks import ext, fat, run

MOST = 64 << 20
FILES: dict[str, bytes | str] = {
    "empty": b"",
    "small": b"some letters",
    "deep/er/still/file": os.urandom(70_000),
    "large": os.urandom(9 << 20),
    "holes": bytes(3 << 20) + b"end",
    "boot/vmlinuz-6.1": b"the kernel",
    "vmlinuz": "boot/vmlinuz-6.1",
    "deep/up": "../boot/vmlinuz-6.1",
    "absolute": "/deep/er",
    "far": f"/deep/{'./' * 60}er/still/file",
    "nowhere": "/not/there",
    "round": "round",
    **{f"many/{number:04}-{'n' * 200}": str(number).encode() for number in range(600)},
}


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("ext4", ()),
        ("ext4", ("-b", "1024")),
        ("ext4", ("-b", "4096", "-I", "128", "-O", "^64bit")),
        ("ext4", ("-O", "inline_data")),
        ("ext3", ()),
        ("ext2", ("-b", "1024")),
    ],
)
def test_ext_has_what_mke2fs_put_there(kind: str, options: tuple[str, ...], tmp_path: Path) -> None:
    file = ext(tmp_path / "fs", FILES, *options, kind=kind, size="40M")
    with file.open("rb") as stream:
        system = Ext4(Raw(stream))
        for name, content in FILES.items():
            if isinstance(content, bytes):
                assert system.read(f"/{name}", MOST) == content, name
        assert system.read("/vmlinuz", MOST) == system.read("/deep/up", MOST) == b"the kernel"
        assert system.read("/absolute/still/file", MOST) == system.read("far", MOST) == FILES["deep/er/still/file"]
        assert system.read("/nowhere", MOST) is system.read("/deep", MOST) is system.read("/small/x", MOST) is None
        assert sorted(system.names("/deep")) == ["er", "up"] and len(system.names("/many")) == 600
        assert system.names("/small") == system.names("/none") == []
        with pytest.raises(ValueError, match="too many links"):
            system.read("/round", MOST)
        with pytest.raises(ValueError, match="at most 9"):
            system.read("/small", 9)
        told = run(needs.program("blkid", "util-linux"), "-p", "-o", "export", file).decode()
        assert f"UUID={system.uuid}\n" in told and f"LABEL={system.label}\n" in told and not system.caution


def test_a_file_system_that_was_not_unmounted_is_doubtful(tmp_path: Path) -> None:
    file = ext(tmp_path / "fs", {"a": b"b"})
    run(needs.program("debugfs", "e2fsprogs"), "-w", "-R", "feature needs_recovery", file)
    assert "journal" in Ext4(Whole(file.read_bytes())).caution


def test_a_feature_that_is_not_known_is_refused(tmp_path: Path) -> None:
    file = ext(tmp_path / "fs", {"a": b"b"}, "-O", "meta_bg,^resize_inode")
    found = file_system(Whole(file.read_bytes()))
    assert isinstance(found, Unread) and "not known here (0x10)" in found.why


@pytest.mark.parametrize(
    ("size", "options"), [(4 << 20, ("-F", "12")), (40 << 20, ("-F", "16")), (80 << 20, ("-F", "32", "-s", "1"))]
)
def test_fat_has_what_mtools_put_there(size: int, options: tuple[str, ...], tmp_path: Path) -> None:
    files = {
        "EFI/Linux/a-name.that_is_not_short.efi": os.urandom(300_000),
        "EFI/BOOT/BOOTX64.EFI": b"program",
        "loader/loader.conf": b"timeout 0",
        "empty": b"",
        "Größe.txt": b"size",
        **{f"many/a long name with number {number}.conf": str(number).encode() for number in range(80)},
    }
    file = fat(tmp_path / "fs", files, *options, size=size)
    with file.open("rb") as stream:
        system = Fat(Raw(stream))
        for name, content in files.items():
            assert system.read(f"/{name}", MOST) == content, name
        assert system.read("/efi/LINUX/A-NAME.that_is_not_short.EFI", MOST) == files[next(iter(files))]
        assert system.read("\\EFI\\BOOT\\bootx64.efi", MOST) == b"program"
        assert sorted(system.names("/")) == sorted({name.split("/")[0] for name in files})
        assert len(system.names("/many")) == 80 and system.names("/empty") == []
        assert system.read("/EFI", MOST) is system.read("/none/file", MOST) is None
        with pytest.raises(ValueError, match="at most 3"):
            system.read("/EFI/BOOT/BOOTX64.EFI", 3)
        told = run(needs.program("blkid", "util-linux"), "-p", "-o", "export", file).decode()
        assert f"UUID={system.uuid}\n" in told and f"LABEL={system.label}\n" in told


def test_fragments_of_a_file_are_put_together(tmp_path: Path) -> None:
    file = fat(tmp_path / "fs", {f"{number}": os.urandom(5000) for number in range(200)}, "-F", "16", "-s", "2")
    delete, copy = needs.program("mdel", "mtools"), needs.program("mcopy", "mtools")
    run(delete, "-i", file, *(f"::{number}" for number in range(0, 200, 2)))
    content = tmp_path / "content"
    content.write_bytes(os.urandom(30 << 20))
    run(copy, "-i", file, content, "::large")
    assert Fat(Whole(file.read_bytes())).read("/large", MOST) == content.read_bytes()


@pytest.mark.parametrize("maker", ["ext4", "fat"])
def test_whatever_is_changed_in_it_reading_ends_and_says_what_is_wrong(maker: str, tmp_path: Path) -> None:
    names = {"boot/vmlinuz": os.urandom(40_000), "boot/initrd": b"initrd", "loader/entries/a.conf": b"title a"}
    file = ext(tmp_path / "fs", names, size="4M") if maker == "ext4" else fat(tmp_path / "fs", names, size=4 << 20)
    whole = file.read_bytes()
    written = [at for at in range(0, len(whole), 512) if any(whole[at : at + 512])]
    random = Random(1)
    for _ in range(400):
        spoiled = bytearray(whole)
        for _ in range(random.randint(1, 12)):
            at = random.choice(written) + random.randrange(512)
            spoiled[at] = random.choice((0, 1, 0x7F, 0xFF, random.randrange(256)))
        found = file_system(Raw(io.BytesIO(spoiled)))
        if isinstance(found, Unread):
            continue
        for name in names:
            try:
                content = found.read(f"/{name}", MOST)
            except ValueError:
                continue
            assert content is None or len(content) <= MOST


@pytest.mark.parametrize(
    ("magic", "at", "kind"),
    [(b"XFSB", 0, "xfs"), (b"_BHRfS_M", 0x10040, "btrfs"), (b"LUKS\xba\xbe", 0, "LUKS"), (b"LABELONE", 512, "LVM")],
)
def test_what_is_not_read_is_called_by_its_name(magic: bytes, at: int, kind: str) -> None:
    found = file_system(Whole((bytes(at) + magic).ljust(1 << 20, b"\0")))
    assert isinstance(found, Unread) and found.kind == kind
