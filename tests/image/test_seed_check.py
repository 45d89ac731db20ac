"""The guest's own check of its seed: a program that stands alone, with files in the place of disks and processor."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sevlaunch.errors import UsageError
from sevlaunch.image.in_guest import PROGRAM, SETTINGS, STAGES, UNIT, UNIT_NAME, write_seed_check
from sevlaunch.image.initdata import initdata_disk
from sevlaunch.profile.initdata_values import parse_initdata, write_initdata
from tests import needs
from tests.conftest import Command

SEED = {"meta-data": b"instance-id: a\n", "user-data": b"#cloud-config\n"}


class InGuest:
    """Files that stand for what a guest finds."""

    def __init__(self, base: Path) -> None:
        self.base = base
        write_seed_check(base / "root")
        self.seed = base / "seed"
        self.seed.mkdir()
        for name, content in SEED.items():
            (self.seed / name).write_bytes(content)
        self.to = base / "cloud/seed/nocloud"
        self.bind({f"seed/{name}": hashlib.sha256(content).hexdigest() for name, content in SEED.items()})

    def bind(self, data: dict[str, str], algorithm: str = "sha-256") -> None:
        """Make the disk, and a report of a launch with it."""
        document = write_initdata(algorithm, data)
        (self.base / "disk").write_bytes(initdata_disk(document))
        self.report(parse_initdata(document).host_data)

    def report(self, host_data: bytes) -> None:
        """Make a report."""
        (self.base / "report").write_bytes(bytes(0xC0) + host_data + bytes(0x4A0 - 0xE0))

    def check(self, *more: str | Path) -> tuple[int, str]:
        """Exit code and words of the program, which finds nothing of sevlaunch's."""
        program = self.base / "root" / PROGRAM
        options = ("--initdata", self.base / "disk", "--seed", self.seed, "--to", self.to)
        report: tuple[str | Path, ...] = ("--report", self.base / "report")
        if "--without-report" in more:
            report = ()
        done = subprocess.run(
            [sys.executable, "-I", "-S", program, *options, *report, *more, "--serial", self.base / "serial"],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stderr

    def given(self) -> dict[str, bytes]:
        """What cloud-init would find."""
        return {file.name: file.read_bytes() for file in self.to.iterdir()} if self.to.exists() else {}


@pytest.fixture
def guest(tmp_path: Path) -> InGuest:
    """A guest in which all is right."""
    return InGuest(tmp_path)


def test_the_bound_seed_is_given_to_cloud_init(guest: InGuest) -> None:
    code, said = guest.check()
    assert (code, guest.given()) == (0, SEED), said
    assert "the seed is the bound one: meta-data, user-data" in said
    # What lay there from another boot goes.
    (guest.to / "vendor-data").write_text("old")
    assert guest.check()[0] == 0
    assert guest.given() == SEED
    assert {file.stat().st_mode & 0o777 for file in guest.to.iterdir()} == {0o600}


@pytest.mark.parametrize("algorithm", ["sha-384", "sha-512"])
def test_the_other_algorithms_are_cut_as_the_launcher_cuts_them(algorithm: str, guest: InGuest) -> None:
    guest.bind({f"seed/{name}": hashlib.sha256(content).hexdigest() for name, content in SEED.items()}, algorithm)
    assert guest.check()[0] == 0


def change_user_data(guest: InGuest) -> None:
    (guest.seed / "user-data").write_bytes(b"#cloud-config\nruncmd: [evil]\n")


def add_a_file(guest: InGuest) -> None:
    (guest.seed / "vendor-data").write_bytes(b"#cloud-config\n")


def add_a_link(guest: InGuest) -> None:
    (guest.seed / "network-config").symlink_to("/etc/passwd")


def take_a_file(guest: InGuest) -> None:
    (guest.seed / "meta-data").unlink()


def bind_another_seed(guest: InGuest) -> None:
    """The host changes seed and init-data alike; HOST_DATA it can't."""
    report = (guest.base / "report").read_bytes()
    change_user_data(guest)
    content = (guest.seed / "user-data").read_bytes()
    meta = hashlib.sha256(SEED["meta-data"]).hexdigest()
    guest.bind({"seed/meta-data": meta, "seed/user-data": hashlib.sha256(content).hexdigest()})
    (guest.base / "report").write_bytes(report)


def no_host_data(guest: InGuest) -> None:
    guest.report(bytes(32))


def short_report(guest: InGuest) -> None:
    (guest.base / "report").write_bytes(bytes(16))


def bind_nothing(guest: InGuest) -> None:
    guest.bind({"aa.toml": "x"})


def no_disk(guest: InGuest) -> None:
    (guest.base / "disk").write_bytes(b"LUKS" + bytes(508))


def short_disk(guest: InGuest) -> None:
    disk = (guest.base / "disk").read_bytes()
    (guest.base / "disk").write_bytes(disk[:40])


def large_disk(guest: InGuest) -> None:
    (guest.base / "disk").write_bytes(b"initdata" + (1 << 40).to_bytes(8, "little"))


def packed_bomb(guest: InGuest) -> None:
    (guest.base / "disk").write_bytes(initdata_disk(b"#" * (1 << 24)))


def no_document(guest: InGuest) -> None:
    (guest.base / "disk").write_bytes(initdata_disk(b"version = "))


def serial_with_a_seed(guest: InGuest) -> None:
    (guest.base / "serial").write_text("ds=nocloud;s=http://10.0.2.2/\n")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_user_data, "user-data was changed"),
        (add_a_file, "vendor-data is there, and not bound"),
        (add_a_link, "network-config, which is no file"),
        (take_a_file, "meta-data is not there"),
        (bind_another_seed, "the init-data's digest is"),
        (no_host_data, "HOST_DATA is 00000000"),
        (short_report, "wanted a report of 1184 bytes, found 16"),
        (bind_nothing, "the init-data binds no seed"),
        (no_disk, "is no disk with init-data"),
        (short_disk, "cut short"),
        (large_disk, "larger than 1048576 bytes"),
        (packed_bomb, "larger than 1048576 bytes"),
        (no_document, "neither TOML nor JSON"),
        (serial_with_a_seed, "the SMBIOS serial number names a seed"),
    ],
)
def test_anything_else_is_refused_by_name_and_gives_nothing(
    change: Callable[[InGuest], None], message: str, guest: InGuest
) -> None:
    change(guest)
    code, said = guest.check()
    assert code == 1 and f"REFUSED: {said.partition('REFUSED: ')[2]}" in said
    assert message in said
    assert guest.given() == {}


def test_without_a_report_it_compares_and_says_that_it_proves_nothing(guest: InGuest) -> None:
    no_host_data(guest)
    code, said = guest.check("--without-report")
    assert code == 0 and "NOTHING IS PROVED" in said
    change_user_data(guest)
    assert guest.check("--without-report")[0] == 1


def test_what_the_host_wrote_does_nothing_to_a_terminal(guest: InGuest) -> None:
    (guest.seed / "x\x1b[31m").write_text("x")
    said = guest.check()[1]
    assert "\x1b" not in said and "x?[31m is there" in said


def test_the_files_lie_as_an_image_wants_them(tmp_path: Path, sevlaunch: Command) -> None:
    root = tmp_path / "root"
    result = sevlaunch("image", "seed-check", root, "--format", "json").json
    assert {Path(file) for file in result["files"]} == {file for file in root.rglob("*") if not file.is_dir()}
    assert os.access(root / PROGRAM, os.X_OK)
    unit = (root / UNIT).read_text()
    for stage in STAGES:
        assert (root / f"etc/systemd/system/{stage}.requires/{UNIT_NAME}").readlink() == Path(f"/{UNIT}")
        assert stage in next(line for line in unit.splitlines() if line.startswith("Before=cloud"))
    assert f"ExecStart=/{PROGRAM}\n" in unit
    assert "exists" in sevlaunch("image", "seed-check", root, check=2).stderr
    with pytest.raises(UsageError):
        write_seed_check(root)
    assert (root / SETTINGS).exists()


def test_cloud_init_reads_the_folder_before_disks_and_no_disk_by_these_settings() -> None:
    source = (needs.cloud_init() / "cloudinit/sources/DataSourceNoCloud.py").read_text()
    assert re.search(r'label = self\.ds_cfg\.get\("fs_label", "cidata"\)\s+if label is not None:', source)
    assert 'os.path.join(paths.seed_dir, "nocloud")' in source
    # What else of the host's it listens to, the check looks at.
    assert 'dmi.read_dmi_data("system-serial-number")' in source
