"""What QEMU really is given of a measured boot is what the owner expects, and what sev-snp-measure says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import needs
from tests.conftest import PROFILES, Command
from tests.hash_trees import BLOCK, data_of, make_tree
from tests.rehearsal.owner import rehearsed
from tests.rehearsal.test_snp import SNP_VERSIONS, expected_digest, finished, report_of

CMDLINE = "console=ttyS0"


@pytest.fixture(autouse=True)
def _kvm() -> None:
    needs.rehearsal()


@pytest.mark.parametrize("version", SNP_VERSIONS)
def test_credentials_are_in_the_report(version: str, sevlaunch: Command, base: Path) -> None:
    kernel, initrd, motd = needs.demo_guest() / "vmlinuz", base / "initrd", base / "motd"
    initrd.write_bytes(b"initrd" * 1000 + b"!")
    motd.write_text("hello\n")
    options = (
        "--set",
        "security.kernel_hashes=true",
        "--set",
        f"boot={{kernel: {kernel}, initrd: {initrd}, cmdline: {CMDLINE}, credentials: {{motd: {motd}}}}}",
    )
    rehearsed(sevlaunch, "sev-snp", version, None, *options)
    given = sevlaunch.runtime / "sev-snp/initrd"
    assert given.stat().st_mode & 0o777 == 0o600
    report = report_of(finished(sevlaunch))
    assert report.measurement == expected_digest(1, hashes=(str(kernel), str(given), CMDLINE))
    firmware = ("--firmware", needs.amdsev_image(), "--vcpus", "1")
    words = ("owner", "digest", PROFILES / "sev-snp.yaml", *firmware, *options, "--format", "hex")
    assert sevlaunch(*words).stdout.strip() == report.measurement.hex()
    sevlaunch("down", "sev-snp", "--now")
    assert sevlaunch.left_behind() == []


@pytest.mark.parametrize("version", SNP_VERSIONS)
def test_the_root_hash_is_in_the_report(version: str, sevlaunch: Command, base: Path) -> None:
    kernel, initrd, data, tree = needs.demo_guest() / "vmlinuz", base / "initrd", base / "root", base / "tree"
    initrd.write_bytes(b"initrd" * 1000)
    data.write_bytes(data_of(200 * BLOCK))
    root_hash = make_tree(data, tree)
    verity = "verity: {data: disk0, hash: disk1}"
    options = (
        "--set",
        "security.kernel_hashes=true",
        "--set",
        f"boot={{kernel: {kernel}, initrd: {initrd}, cmdline: {CMDLINE}, {verity}}}",
        "--set",
        f"disks=[{{path: {data}, read_only: true}}, {{path: {tree}, read_only: true}}]",
    )
    evidence = rehearsed(sevlaunch, "sev-snp", version, None, *options)
    cmdline = evidence["command"][evidence["command"].index("-append") + 1]
    assert f"{CMDLINE} roothash={root_hash} " in cmdline
    report = report_of(finished(sevlaunch))
    assert report.measurement == expected_digest(1, hashes=(str(kernel), str(initrd), cmdline))
    firmware = ("--firmware", needs.amdsev_image(), "--vcpus", "1")
    words = ("owner", "digest", PROFILES / "sev-snp.yaml", *firmware, *options, "--format", "hex")
    assert sevlaunch(*words).stdout.strip() == report.measurement.hex()
