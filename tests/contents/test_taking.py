"""What would be booted from a disk, by boot loader entries, unified images, GRUB's configuration, or links."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from sevlaunch.contents.taking import Taken, take
from sevlaunch.contents.uki import read_uki
from sevlaunch.contents.version import compare_versions
from sevlaunch.contents.volume import Whole, open_volume
from tests.contents.disks import ESP, ROOT, XBOOTLDR, disk, ext, fat, kernel, uki

# As grub-mkconfig of Debian writes it, without the lines that set up screens.
GRUB = """\
if [ -s $prefix/grubenv ]; then
  set have_grubenv=true
  load_env
fi
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
   set next_entry=
   save_env next_entry
   set boot_once=true
else
   set default="DEFAULT"
fi
function load_video {
  if [ x$feature_all_video_module = xy ]; then
    insmod all_video
  fi
}
menuentry 'Debian GNU/Linux' --class debian --class os $menuentry_id_option 'gnulinux-simple-abc' {
\tload_video
\tif [ x$grub_platform = xxen ]; then insmod xzio; insmod lzopio; fi
\tsearch --no-floppy --fs-uuid --set=root 0f39a5c8
\techo\t'Loading Linux 6.1.0-2 ...'
\tlinux\t/boot/vmlinuz-6.1.0-2 root=UUID=0f39a5c8 ro console=tty0 console=ttyS0,115200 $vt_handoff
\tinitrd\t/boot/ucode.img /boot/initrd.img-6.1.0-2
}
submenu 'Advanced options for Debian GNU/Linux' $menuentry_id_option 'gnulinux-advanced-abc' {
\tmenuentry 'Debian GNU/Linux, with Linux 6.1.0-2' --class debian $menuentry_id_option 'gnulinux-6.1.0-2' {
\t\tlinux\t/boot/vmlinuz-6.1.0-2 root=UUID=0f39a5c8 ro
\t\tinitrd\t/boot/initrd.img-6.1.0-2
\t}
\tmenuentry 'Debian GNU/Linux, with Linux 6.1.0-1' --class debian $menuentry_id_option 'gnulinux-6.1.0-1' {
\t\tlinux\t/boot/vmlinuz-6.1.0-1 root=UUID=0f39a5c8 ro 'quoted=a b'
\t\tinitrd\t/boot/initrd.img-6.1.0-1
\t}
}
if [ "$grub_platform" = "efi" ]; then
\tmenuentry 'UEFI Firmware Settings' $menuentry_id_option 'uefi-firmware' {
\t\tfwsetup
\t}
fi
"""
BOOT: dict[str, bytes | str] = {
    "boot/vmlinuz-6.1.0-1": kernel("1"),
    "boot/vmlinuz-6.1.0-2": kernel("2"),
    "boot/initrd.img-6.1.0-1": b"initrd 1",
    "boot/initrd.img-6.1.0-2": b"initrd 2",
    "boot/ucode.img": b"ucode",
}


def taken(image: Path) -> Taken:
    """What is taken from an image."""
    with image.open("rb") as file:
        return take(open_volume(file))


def entry(name: str, **fields: str) -> tuple[str, bytes]:
    """A boot loader entry with a kernel of its own."""
    lines = {
        "title": name,
        "linux": f"/{name}/linux",
        "initrd": f"/{name}/initrd",
        "options": f"root=/{name}",
        **fields,
    }
    return f"loader/entries/{name}.conf", "".join(
        f"{key.replace('_', '-')}  {value}\n" for key, value in lines.items()
    ).encode()


def esp(tmp_path: Path, files: dict[str, bytes]) -> Path:
    """A disk whose ESP has these files, and below the folder of each entry its kernel and initrd."""
    for name in [name for name in files if name.startswith("loader/entries/")]:
        stem = name.removeprefix("loader/entries/").removesuffix(".conf")
        files |= {f"{stem}/linux": kernel(stem), f"{stem}/initrd": stem.encode()}
    return disk(tmp_path / "disk", [(ESP, fat(tmp_path / "esp", files))])


@pytest.mark.parametrize("qcow2", [False, True])
def test_an_entry_of_the_esp(qcow2: bool, tmp_path: Path) -> None:
    files = dict([entry("debian", initrd="/ucode /debian/initrd"), ("ucode", b"12345")])
    files |= {"debian/linux": kernel("debian"), "debian/initrd": b"initrd"}
    parts = [(ESP, fat(tmp_path / "esp", files)), (ROOT, ext(tmp_path / "root", BOOT))]
    found = taken(disk(tmp_path / "disk", parts, qcow2=qcow2))
    assert (found.kernel, found.initrd, found.cmdline) == (kernel("debian"), b"12345\0\0\0initrd", "root=/debian")
    assert found.places == {
        "kernel": "/debian/linux in partition 1 (FAT)",
        "initrd": "/ucode in partition 1 (FAT) and /debian/initrd in partition 1 (FAT)",
        "cmdline": "/loader/entries/debian.conf in partition 1 (FAT)",
    }
    assert "LABEL=rootfs" in found.roots and found.all_named and not found.cautions


def test_the_newest_of_a_system_is_the_default(tmp_path: Path) -> None:
    files = dict(
        [
            entry("a", sort_key="debian", version="6.9"),
            entry("b", sort_key="debian", version="6.12"),
            entry("c", sort_key="debian", version="6.12~rc1"),
            entry("z"),
            entry("y+0-3", sort_key="aaa", version="7"),
            entry("x", sort_key="aaa", architecture="aa64"),
        ]
    )
    assert taken(esp(tmp_path, files)).cmdline == "root=/b"


@pytest.mark.parametrize(
    ("wanted", "found"), [("z*", "z"), ("a.conf", "a"), ("a", "a"), ("nothing", "b"), ("@saved", "b")]
)
def test_loader_conf_has_the_word(wanted: str, found: str, tmp_path: Path) -> None:
    files = dict(
        [entry("a"), entry("b", sort_key="x"), entry("z"), ("loader/loader.conf", f"default {wanted}\n".encode())]
    )
    assert taken(esp(tmp_path, files)).cmdline == f"root=/{found}"


def test_a_unified_image_beside_entries_is_one_of_them(tmp_path: Path) -> None:
    def image(version: str) -> bytes:
        release = f'ID=debian\nIMAGE_VERSION="{version}"\nPRETTY_NAME="Debian {version}"\n'.encode()
        return uki(
            [(".osrel", release), (".cmdline", b"root=LABEL=r quiet\n\0"), (".linux", kernel("u")), (".initrd", b"i")]
        )

    files = dict([entry("old")]) | {"EFI/Linux/a.efi": image("1"), "EFI/Linux/b+3.efi": image("2")}
    files |= {"EFI/Linux/c+0-3.efi": image("3"), "EFI/Linux/shell.efi": b"MZ", "EFI/BOOT/BOOTX64.EFI": b"MZ"}
    found = taken(esp(tmp_path, files))
    assert found.kernel == image("2") and found.initrd is None and found.cmdline is None
    assert found.uki and found.uki.cmdline == "root=LABEL=r quiet"
    assert found.places == {"kernel": "/EFI/Linux/b+3.efi in partition 1 (FAT)"}


def test_a_boot_partition_of_its_own(tmp_path: Path) -> None:
    files = {"loader/entries/f.conf": b"title F\nlinux /vmlinuz\ninitrd /initrd\noptions root=UUID=1 $kernelopts $no\n"}
    files |= {
        "vmlinuz": kernel("f"),
        "initrd": b"i",
        "grub2/grubenv": b"# GRUB Environment Block\nkernelopts=ro quiet\n####",
    }
    tree: dict[str, bytes | str] = dict(files)
    parts = [
        (ESP, fat(tmp_path / "esp", {"EFI/fedora/grub.cfg": b"configfile x"})),
        (XBOOTLDR, ext(tmp_path / "x", tree)),
    ]
    found = taken(disk(tmp_path / "disk", parts))
    assert (found.kernel, found.initrd, found.cmdline) == (kernel("f"), b"i", "root=UUID=1 ro quiet")


def test_the_entry_that_grub_has_saved(tmp_path: Path) -> None:
    tree: dict[str, bytes | str] = dict([entry("1-6.8"), entry("1-6.9"), entry("1-0-rescue")])
    tree |= {f"1-{version}/{name}": kernel(version) for version in ("6.8", "6.9") for name in ("linux", "initrd")}
    assert taken(disk(tmp_path / "a", [(XBOOTLDR, ext(tmp_path / "x", tree))])).cmdline == "root=/1-6.9"
    tree["grub2/grubenv"] = b"# GRUB Environment Block\nsaved_entry=1-6.8\n####"
    assert taken(disk(tmp_path / "b", [(XBOOTLDR, ext(tmp_path / "y", tree))])).cmdline == "root=/1-6.8"


GRUB_CASES = {
    "0": ("2", "root=UUID=0f39a5c8 ro console=tty0 console=ttyS0,115200"),
    "gnulinux-advanced-abc>gnulinux-6.1.0-1": ("1", "root=UUID=0f39a5c8 ro quoted=a b"),
    "1>1": ("1", "root=UUID=0f39a5c8 ro quoted=a b"),
    "1": ("2", "root=UUID=0f39a5c8 ro"),
    "Debian GNU/Linux": ("2", "root=UUID=0f39a5c8 ro console=tty0 console=ttyS0,115200"),
    "${saved_entry}": ("1", "root=UUID=0f39a5c8 ro quoted=a b"),
}


@pytest.mark.parametrize("default", GRUB_CASES)
def test_grubs_default(default: str, tmp_path: Path) -> None:
    number, cmdline = GRUB_CASES[default]
    environment = b"# GRUB Environment Block\nsaved_entry=gnulinux-advanced-abc>gnulinux-6.1.0-1\n########"
    config = GRUB.replace("DEFAULT", default).encode()
    tree = BOOT | {"boot/grub/grub.cfg": config, "boot/grub/grubenv": environment}
    image = disk(
        tmp_path / "disk", [(ESP, fat(tmp_path / "esp", {"EFI/x": b""})), (ROOT, ext(tmp_path / "root", tree))]
    )
    found = taken(image)
    ucode = b"ucode\0\0\0" if "console" in cmdline else b""
    assert (found.kernel, found.initrd, found.cmdline) == (kernel(number), ucode + f"initrd {number}".encode(), cmdline)


def test_links_and_a_command_line_beside_them(tmp_path: Path) -> None:
    links: dict[str, bytes | str] = {"vmlinuz": "boot/vmlinuz-6.1.0-2", "initrd.img": "boot/initrd.img-6.1.0-2"}
    with_one = BOOT | links | {"etc/kernel/cmdline": b"root=LABEL=rootfs\n ro\n"}
    found = taken(disk(tmp_path / "disk", [(ROOT, ext(tmp_path / "root", with_one))]))
    assert (found.kernel, found.initrd, found.cmdline) == (kernel("2"), b"initrd 2", "root=LABEL=rootfs ro")
    without = taken(ext(tmp_path / "alone", BOOT | links))
    assert without.cmdline is None and without.places["kernel"] == "/vmlinuz in the disk (ext4)"


def test_a_disk_with_an_mbr(tmp_path: Path) -> None:
    tree = BOOT | {"boot/grub/grub.cfg": GRUB.replace("DEFAULT", "0").encode()}
    found = taken(disk(tmp_path / "disk", [("83", ext(tmp_path / "root", tree))], label="dos"))
    assert found.kernel == kernel("2")


@pytest.mark.parametrize(
    ("tree", "reason"),
    [
        (BOOT, "partition 1 (ext4) has no kernel; partition 2 is btrfs, which is not read here"),
        (BOOT | {"boot/grub/grub.cfg": GRUB.replace("DEFAULT", "7").encode()}, "no entry '7', which is its default"),
        (
            BOOT | {"boot/grub/grub.cfg": GRUB.replace("DEFAULT", "2").encode()},
            "'UEFI Firmware Settings', starts no Linux",
        ),
        (
            {"boot/grub/grub.cfg": GRUB.replace("DEFAULT", "0").encode()},
            "/boot/vmlinuz-6.1.0-2 in partition 1 (ext4) is not there",
        ),
        ({"vmlinuz": b"no kernel"}, "/vmlinuz in partition 1 (ext4) is no Linux kernel"),
        ({"vmlinuz": b""}, "/vmlinuz in partition 1 (ext4) is empty"),
    ],
)
def test_what_can_t_be_taken_is_said(tree: dict[str, bytes | str], reason: str, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes((bytes(0x10040) + b"_BHRfS_M").ljust(1 << 20, b"\0"))
    with pytest.raises(ValueError) as error:
        taken(disk(tmp_path / "disk", [(ROOT, ext(tmp_path / "root", tree)), (ROOT, other)]))
    assert reason in str(error.value)


@pytest.mark.parametrize("options", ["root=/a\x1b]0;x", "root=/a\0init=/b", "root=\u202e"])
def test_a_command_line_with_control_characters_is_refused(options: str, tmp_path: Path) -> None:
    files = dict([entry("a", options=options)])
    with pytest.raises(ValueError, match=r"control characters, or is no UTF-8: root=[^\x1b\0]+$"):
        taken(esp(tmp_path, files))


def test_a_unified_image_s_command_line_is_as_the_stub_takes_it() -> None:
    def found(cmdline: bytes) -> str | None:
        image = read_uki(Whole(uki([(".linux", kernel("x")), (".cmdline", cmdline)])))
        return image.cmdline if image else "none"

    assert found(b" root=/a\n\x1bquiet\n\0 more") == "root=/a  quiet" and found(b"\0") == ""
    for cmdline in (b"root=\x7f", b"root=\xff", "root=\u202e".encode()):
        with pytest.raises(ValueError, match="control characters"):
            found(cmdline)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    files = dict([entry("a")])
    files["loader/entries/a.conf"] += b"options \xff\xfe\n"
    with pytest.raises(ValueError, match="no UTF-8"):
        taken(esp(tmp_path, files))


def test_a_damaged_table_is_no_table(tmp_path: Path) -> None:
    image = bytearray(disk(tmp_path / "disk", [(ROOT, ext(tmp_path / "root", BOOT))]).read_bytes())
    image[1024] ^= 1
    with pytest.raises(ValueError, match="GPT is damaged"):
        take(Whole(bytes(image)))


@pytest.mark.parametrize("kind", ["entry", "grub", "uki"])
def test_whatever_is_changed_in_a_disk_it_ends_and_says_what_is_wrong(kind: str, tmp_path: Path) -> None:
    content = {
        "entry": dict([entry("a")]) | {"a/linux": kernel("a"), "a/initrd": b"a"},
        "grub": {"grub/grub.cfg": GRUB.encode(), "boot/vmlinuz-6.1.0-2": kernel("a")},
        "uki": {"EFI/Linux/a.efi": uki([(".linux", kernel("a")), (".cmdline", b"root=/a"), (".osrel", b"ID=a")])},
    }[kind]
    whole = disk(tmp_path / "disk", [(ESP, fat(tmp_path / "esp", content, size=4 << 20))]).read_bytes()
    written = [at for at in range(0, len(whole), 512) if any(whole[at : at + 512])]
    random = Random(1)
    for _ in range(300):
        spoiled = bytearray(whole)
        for _ in range(random.randint(1, 6)):
            spoiled[random.choice(written) + random.randrange(512)] = random.choice((0, 1, 0x7F, 0xFF, 0x0A, 0x20))
        with suppress(ValueError):
            assert take(Whole(bytes(spoiled))).kernel


# Pairs from the examples of the UAPI Group's Version Format Specification, older first.
@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("122.1", "123"), ("123~rc1-1", "123"), ("123", "123-a"), ("123-a", "123-a.1"), ("123-a.1", "123-a1"),
        ("123-3", "123^post1"), ("123^post1", "123.a-1"), ("123.a-1", "123.1-1"),
        ("123.1-1", "123a-1"), ("123a-1", "124-1"),
        ("6.9", "6.12"), ("1" * 5000, "2" * 5000), ("", "0"),
    ],
)  # fmt: skip
def test_versions(older: str, newer: str) -> None:
    assert compare_versions(older, newer) == -1 and compare_versions(newer, older) == 1
    assert compare_versions(older, older) == 0
