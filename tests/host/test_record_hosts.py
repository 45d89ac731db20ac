"""scripts/record-hosts writes the recorded hosts as the tests load them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from sevlaunch.host.model import Host
from sevlaunch.host.qemu import qemu_facts
from tests.conftest import HOSTS, ROOT, VERSIONS, qemu_binary_of

SCRIPT = ROOT / "scripts/record_hosts.py"


def record(folder: Path, *versions: str) -> subprocess.CompletedProcess[str]:
    """Run the script."""
    return subprocess.run(
        [sys.executable, str(SCRIPT), "--folder", str(folder), *versions],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_it_writes_the_recorded_host_with_what_qemu_says_today(version: str, tmp_path: Path) -> None:
    binary = qemu_binary_of(version)
    done = record(tmp_path / "hosts", version)
    assert done.returncode == 0, done.stderr
    (file,) = (tmp_path / "hosts").iterdir()
    assert done.stdout == f"{file} written\n"
    made, recorded = Host.load(file), Host.load(HOSTS / file.name)
    assert replace(made, qemu=None) == replace(recorded, qemu=None)
    assert made.qemu == replace(qemu_facts(binary), binary="/usr/bin/qemu-system-x86_64")


def test_a_version_that_nobody_records_is_refused(tmp_path: Path) -> None:
    done = record(tmp_path, "1.0")
    assert done.returncode == 2
    assert "no QEMU 1.0; there are 7.2, 10.0, 11.1" in done.stderr
    assert list(tmp_path.iterdir()) == []
