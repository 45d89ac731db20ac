"""What is taken out of an image for a boot, where it is kept, and when it is taken anew."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from pathlib import Path

import pytest

from sevlaunch.host.boot import boot_facts, kernel_facts
from tests.contents.disks import ESP, ROOT, disk, ext, fat, kernel, uki

BOOT: dict[str, bytes | str] = {
    "vmlinuz": kernel("one"),
    "initrd.img": b"initrd",
    "etc/kernel/cmdline": b"root=LABEL=rootfs",
}
UKI = uki(
    [
        (".osrel", b"ID=x\nPRETTY_NAME='The System'\n"),
        (".uname", b"6.12.1-cloud"),
        (".cmdline", b" root=/dev/vda\nquiet \0\0"),
        (".linux", kernel("in it")),
        (".initrd", b"its initrd"),
    ]
)


def digest(file: str) -> str:
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


def test_it_lies_in_files_of_this_user_named_by_their_content(tmp_path: Path) -> None:
    image = disk(tmp_path / "disk", [(ROOT, ext(tmp_path / "root", BOOT))], qcow2=True)
    found = boot_facts(str(image), tmp_path / "kept/boot")
    assert not found.problem and found.cmdline == "root=LABEL=rootfs" and found.uki is None
    for path, content in ((found.kernel, kernel("one")), (found.initrd, b"initrd")):
        assert Path(path).read_bytes() == content and Path(path).name == digest(path)
        assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "kept/boot").stat().st_mode) == 0o700


def test_an_image_is_read_once_as_long_as_it_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image, folder = ext(tmp_path / "root", BOOT), tmp_path / "boot"
    first = boot_facts(str(image), folder)
    with monkeypatch.context() as patched:
        patched.setattr("sevlaunch.contents.taking.take", lambda disk: pytest.fail("it was read again"))
        assert boot_facts(str(image), folder) == first
    other = ext(tmp_path / "other", BOOT | {"vmlinuz": kernel("two")})
    image.write_bytes(other.read_bytes())
    second = boot_facts(str(image), folder)
    assert Path(second.kernel).read_bytes() == kernel("two") and second.initrd == first.initrd
    # Another guest may be started with what was taken before.
    assert Path(first.kernel).exists()
    Path(second.kernel).unlink()
    assert Path(boot_facts(str(image), folder).kernel).read_bytes() == kernel("two")


def test_what_nobody_has_booted_for_long_goes(tmp_path: Path) -> None:
    image, folder = ext(tmp_path / "root", BOOT), tmp_path / "boot"
    first = boot_facts(str(image), folder)
    for path in (first.kernel, first.initrd):
        os.utime(path, (0, time.time() - 31 * 24 * 3600))
    # It is booted now.
    boot_facts(str(image), folder)
    other = ext(tmp_path / "other", BOOT | {"vmlinuz": kernel("two")})
    boot_facts(str(other), folder)
    assert Path(first.kernel).exists()
    os.utime(first.kernel, (0, time.time() - 31 * 24 * 3600))
    boot_facts(str(ext(tmp_path / "third", BOOT | {"vmlinuz": kernel("three")})), folder)
    assert not Path(first.kernel).exists() and Path(first.initrd).exists()


def test_a_folder_that_others_write_to_is_not_believed(tmp_path: Path) -> None:
    image, folder = ext(tmp_path / "root", BOOT), tmp_path / "boot"
    found = boot_facts(str(image), folder)
    (note,) = folder.glob("*.json")
    note.write_text(note.read_text().replace("root=LABEL=rootfs", "init=/bin/sh     "))
    assert boot_facts(str(image), folder).cmdline == "init=/bin/sh     "
    folder.chmod(0o777)
    assert boot_facts(str(image), folder).cmdline == found.cmdline


@pytest.mark.parametrize("content", [b"", bytes(1 << 20), b"QFI\xfb" + bytes(600), os.urandom(1 << 20)])
def test_an_image_without_a_kernel_is_a_problem_with_its_reason(content: bytes, tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(content)
    found = boot_facts(str(image), tmp_path / "boot")
    assert found.problem.startswith(f"nothing can be booted from {image}: ") and "boot.kernel" in found.hint
    assert not found.kernel


def test_what_is_no_image_is_a_problem(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "none", tmp_path / "fifo", tmp_path):
        found = boot_facts(str(path), tmp_path / "boot")
        assert found.problem.startswith(f"can't read {path}") and found.hint
    image = ext(tmp_path / "root", BOOT)
    (tmp_path / "file").write_bytes(b"")
    assert "file" in boot_facts(str(image), tmp_path / "file/boot").problem


def test_the_sections_of_a_unified_image(tmp_path: Path) -> None:
    file = tmp_path / "linux.efi"
    file.write_bytes(UKI)
    found = kernel_facts(str(file))
    assert found and found.uki and found.kernel == str(file)
    assert (found.uki.name, found.uki.uname, found.uki.cmdline) == ("The System", "6.12.1-cloud", "root=/dev/vda quiet")
    assert found.uki.initrd_bytes == len(b"its initrd") and found.uki.profiles == 1
    image = disk(tmp_path / "disk", [(ESP, fat(tmp_path / "esp", {"EFI/Linux/linux.efi": UKI}))])
    taken = boot_facts(str(image), tmp_path / "boot")
    assert taken.uki == found.uki and Path(taken.kernel).read_bytes() == UKI and not taken.initrd


def test_an_ordinary_kernel_and_what_is_no_kernel_have_no_sections(tmp_path: Path) -> None:
    file = tmp_path / "kernel"
    for content in (kernel("x"), b"", b"MZ", uki([(".text", b"x")])):
        file.write_bytes(content)
        found = kernel_facts(str(file))
        assert found and found.uki is None and not found.problem
    assert kernel_facts(str(tmp_path / "none")) is None


def test_a_unified_image_that_was_cut_is_a_problem(tmp_path: Path) -> None:
    file = tmp_path / "linux.efi"
    file.write_bytes(UKI[:-600])
    found = kernel_facts(str(file))
    assert found and "ends before its section .initrd" in found.problem
