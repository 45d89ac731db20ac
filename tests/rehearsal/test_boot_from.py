"""Real QEMUs measure what was taken from a disk's image: the digest is that of sev-snp-measure for the same files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import needs
from tests.conftest import PROFILES, Command
from tests.contents.disks import ESP, add_sections, disk, fat
from tests.rehearsal.owner import rehearsed
from tests.rehearsal.test_snp import SNP_VERSIONS, expected_digest, finished, report_of

CMDLINE = "console=ttyS0 root=LABEL=rootfs"


@pytest.fixture(autouse=True)
def _kvm() -> None:
    needs.rehearsal()


def measured(sevlaunch: Command, version: str, files: dict[str, bytes]) -> bytes:
    """The measurement of a guest whose disk has these files on its ESP; the owner's digest is the same."""
    parts = [(ESP, fat(sevlaunch.base / "esp", files))]
    image = disk(sevlaunch.base / "disk.qcow2", parts, qcow2=True)
    values = ("security.kernel_hashes=true", "boot={from: disk0}", f"disks=[{{image: {image}, overlay: ephemeral}}]")
    words = [word for value in values for word in ("--set", value)]
    sevlaunch.environment["XDG_CACHE_HOME"] = str(sevlaunch.base / "cache")
    rehearsed(sevlaunch, "sev-snp", version, None, *words)
    said = ("--firmware", needs.amdsev_image(), "--vcpus", "1", "--format", "hex")
    told = sevlaunch("owner", "digest", PROFILES / "sev-snp.yaml", *words, *said)
    measurement = report_of(finished(sevlaunch)).measurement
    assert told.stdout.strip() == measurement.hex()
    return measurement


@pytest.mark.parametrize("version", SNP_VERSIONS)
def test_a_boot_loaders_entry(version: str, sevlaunch: Command, base: Path) -> None:
    kernel, initrd = needs.demo_guest() / "vmlinuz", base / "initrd"
    initrd.write_bytes(b"initrd" * 1000)
    entry = f"linux /linux\ninitrd /initrd\noptions {CMDLINE}\n".encode()
    files = {"loader/entries/a.conf": entry, "linux": kernel.read_bytes(), "initrd": initrd.read_bytes()}
    assert measured(sevlaunch, version, files) == expected_digest(1, hashes=(str(kernel), str(initrd), CMDLINE))


@pytest.mark.parametrize("version", SNP_VERSIONS)
def test_a_unified_image_is_measured_as_one_file(version: str, sevlaunch: Command, base: Path) -> None:
    sections = [(".cmdline", CMDLINE.encode()), (".linux", (needs.demo_guest() / "vmlinuz").read_bytes())]
    image = base / "linux.efi"
    image.write_bytes(add_sections(needs.systemd_stub().read_bytes(), sections))
    found = measured(sevlaunch, version, {"EFI/Linux/a.efi": image.read_bytes()})
    assert found == expected_digest(1, hashes=(str(image), "", ""))
