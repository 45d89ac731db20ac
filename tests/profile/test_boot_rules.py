"""What goes into the initrd and on the command line of a measured boot, as a profile says it."""

from __future__ import annotations

from pathlib import Path

import pytest

from sevlaunch.profile.boot_values import MOST_INITRD_BYTES
from sevlaunch.profile.loader import loads
from tests.profile.test_boot_values import mistakes


def test_credentials_of_the_initrd_are_files_and_texts(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"\x00\xff")
    text = "boot: {kernel: k, initrd: i, credentials: {a.key: key, motd: {text: 'hello: you'}}}"
    loaded = loads(text, base=tmp_path)
    assert loaded.profile.boot.credentials == {"a.key": b"\x00\xff", "motd": b"hello: you"}
    assert loaded.warnings == ()


@pytest.mark.parametrize(
    ("value", "mistake"),
    [
        ("{.a: {text: x}}", "boot.credentials..a: wanted a name of up to 250 letters, digits, and the signs _ . @ -"),
        ("{a/b: {text: x}}", "boot.credentials.a/b: wanted a name of up to 250 letters"),
        (f"{{{'a' * 251}: {{text: x}}}}", f"boot.credentials.{'a' * 251}: wanted a name of up to 250 letters"),
        ("{a: none}", "boot.credentials.a: wanted the path of a file, or {text: ...}: can't read"),
        ("{a: large}", "boot.credentials.a: wanted at most 1024 KiB, which systemd takes, found more"),
        ("{a: half, b: half}", "boot.credentials: they have more than 1024 KiB together"),
    ],
)
def test_each_mistake_about_them_is_told_at_its_place(tmp_path: Path, value: str, mistake: str) -> None:
    (tmp_path / "large").write_bytes(bytes(MOST_INITRD_BYTES + 1))
    (tmp_path / "half").write_bytes(bytes(MOST_INITRD_BYTES // 2 + 1))
    [found] = mistakes(f"boot: {{kernel: k, initrd: i, credentials: {value}}}", tmp_path)
    assert mistake in found


def test_they_need_an_initrd(tmp_path: Path) -> None:
    [found] = mistakes("boot: {kernel: k, credentials: {a: {text: x}}}", tmp_path)
    assert "boot.credentials: credentials are put behind the initrd, and there is none: set boot.initrd" in found


@pytest.mark.parametrize("kind", ["sev", "sev-es", "sev-snp"])
def test_it_is_said_that_they_are_measured_and_not_secret(tmp_path: Path, kind: str) -> None:
    boot = "boot: {kernel: k, initrd: i, credentials: {a: {text: x}}}\n"
    [told] = loads(f"{boot}security: {{type: {kind}, kernel_hashes: true}}", base=tmp_path).warnings
    assert "they are measured, and not secret: the host reads them" in str(told)
    [told] = loads(f"{boot}security: {kind}", base=tmp_path).warnings
    assert "the host reads them, and can change them: nothing is measured without" in str(told)


@pytest.mark.parametrize("name", [".", ".."])
def test_a_credential_has_a_name_that_systemd_takes(tmp_path: Path, name: str) -> None:
    [found] = mistakes(f"credentials: {{'{name}': {{text: x}}}}", tmp_path)
    assert "wanted a name of letters, digits" in found


ROOT = "boot: {{kernel: k, initrd: i, {boot}verity: {{data: disk0{verity}}}}}\ndisks: [{{{disk}}}{more}]\n"


def root(*, boot: str = "", verity: str = "", disk: str = "path: /r, read_only: true", more: str = "") -> str:
    """A profile whose root is under dm-verity."""
    return ROOT.format(boot=boot, verity=verity, disk=disk, more=more)


TREE = ", {path: /t, read_only: true}"


@pytest.mark.parametrize(
    "text",
    [
        root(),
        root(disk="image: /r, read_only: true"),
        root(verity=", hash: disk1", more=TREE),
        root(verity=f", root_hash: {'ab' * 32}, format: kernel"),
        root(boot="cmdline: console=ttyS0 root=/dev/mapper/root ro, "),
    ],
)
def test_a_root_under_verity(text: str, tmp_path: Path) -> None:
    assert loads(text, base=tmp_path).warnings == ()


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        (root().replace("kernel: k, initrd: i, ", ""), "boot.verity: the root hash is put on the command line"),
        (root(verity=", hash: disk0"), "boot.verity.hash: data and tree are both on disk0: say hash: appended"),
        (root(verity=", hash: disk7"), "boot.verity.hash: there is no disk7; the profile has disk0"),
        (root(verity=", hash: behind"), "boot.verity.hash: wanted appended, or a disk of the profile such as disk0"),
        (root(verity=", root_hash: abc"), "boot.verity.root_hash: wanted auto, or the 64 hexadecimal digits"),
        (root(disk="path: /r"), "disks.0: boot.verity has the root on disk0, and what is written there breaks it"),
        (root(verity=", hash: disk1", more=", {path: /t}"), "disks.1: boot.verity has its hash tree on disk1, and"),
        (root(disk="image: /r"), "disks.0.image: boot.verity has the root on disk0, and an overlay would hide what"),
        (root(disk="image: /r, overlay: keep"), "disks.0.overlay: boot.verity has the root on disk0, and an overlay"),
        (root(disk="path: /r, read_only: true, bus: nvme"), "disks.0.bus: boot.verity has the root on disk0, and the"),
        (root(disk="folder: /r"), "disks.0.folder: boot.verity has the root on disk0: wanted a raw or qcow2 image"),
        (root(disk="path: /r, read_only: true, serial: a/b"), "disks.0.serial: boot.verity has the root on disk0, and"),
        (root(more=", {path: /x, serial: disk0}"), "disks.1.serial: boot.verity has the root on disk0, and the guest"),
        (root(boot="cmdline: roothash=00, "), "boot.cmdline: boot.verity puts roothash there: leave 'roothash=00' out"),
        (root(boot="cmdline: rd.systemd.verity=0, "), "boot.cmdline: boot.verity puts systemd.verity there"),
        (root(boot="cmdline: root=LABEL=x, "), "boot.cmdline: 'root=LABEL=x' is another root than that of boot.verity"),
        (root(boot="cmdline: quiet rw, "), "boot.cmdline: a root under dm-verity can't be written to: leave 'rw' out"),
    ],
)
def test_what_can_t_be_a_root_under_verity_is_told_at_its_place(text: str, mistake: str, tmp_path: Path) -> None:
    [found] = mistakes(text, tmp_path)
    assert mistake in found


def test_where_what_is_written_goes_is_said(tmp_path: Path) -> None:
    for disk in ("path: /r", "image: /r"):
        [found] = mistakes(root(disk=disk), tmp_path)
        assert "say read_only: true; what the guest writes, such as /var, goes to a disk of its own" in found


def test_a_root_hash_that_nothing_measures_is_warned_of(tmp_path: Path) -> None:
    [told] = loads(f"{root()}security: sev-snp\n", base=tmp_path).warnings
    assert "boot.verity: the root hash is on a command line that nothing measures" in str(told)
    measured = loads(f"{root()}security: {{type: sev-snp, kernel_hashes: true}}\n", base=tmp_path)
    assert measured.warnings == ()
