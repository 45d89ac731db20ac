"""The virtual environment that scripts make: what the lock has and nothing else, renewed when that changes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.packages import make_wheel, need_index

sys.path.insert(0, str(ROOT / "scripts"))

from dependencies import LOCK, versions

pytestmark = pytest.mark.long


class Clone:
    """A copy of the project of which a script makes the virtual environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(ROOT / "sevlaunch", folder / "sevlaunch", ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "README.md", "LICENSE", "scripts/lib.sh", *LOCK):
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copy(ROOT / name, folder / name)

    def prepare(self) -> subprocess.CompletedProcess[str]:
        """As scripts/quickstart does it."""
        script = 'set -euo pipefail; . scripts/lib.sh; prepare_venv "$PWD" ""'
        return subprocess.run(
            ["bash", "-c", script], cwd=self.folder, capture_output=True, text=True, timeout=600, check=False
        )

    def pip(self, *arguments: str | Path) -> str:
        """What the pip in there prints."""
        command = [self.folder / ".venv/bin/python", "-m", "pip", *arguments, "--disable-pip-version-check"]
        return subprocess.run(command, capture_output=True, text=True, timeout=600, check=True).stdout

    @property
    def packages(self) -> dict[str, str]:
        """What is installed besides pip and the project."""
        listed = json.loads(self.pip("list", "--format", "json"))
        found = {re.sub("[-_.]+", "-", entry["name"]).lower(): entry["version"] for entry in listed}
        return {name: version for name, version in found.items() if name not in ("pip", "sevlaunch")}


def test_what_is_installed_is_what_the_lock_has(tmp_path: Path) -> None:
    need_index(tmp_path)
    clone = Clone(tmp_path / "clone")
    done = clone.prepare()
    assert done.returncode == 0, done.stderr
    lock = {name: version for name, version in versions((ROOT / LOCK[0]).read_text()).items() if name != "colorama"}
    assert clone.packages == lock
    stamp = clone.folder / ".venv/.installed"
    first = stamp.stat().st_mtime_ns

    # Nothing is done when nothing changed.
    done = clone.prepare()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert stamp.stat().st_mtime_ns == first

    # What no lock has goes, once one of the files that say what is wanted has changed.
    clone.pip("install", "--no-index", make_wheel(tmp_path, "unlocked", "1.0", ""))
    assert clone.packages == {**lock, "unlocked": "1.0"}
    with (clone.folder / LOCK[1]).open("a") as file:
        file.write("# changed\n")
    done = clone.prepare()
    assert done.returncode == 0, done.stderr
    assert clone.packages == lock

    # The programs in a virtual environment name its place.
    moved = clone.folder.rename(tmp_path / "moved")
    clone.folder = moved
    done = clone.prepare()
    assert done.returncode == 0, done.stderr
    version = subprocess.run([moved / ".venv/bin/sevlaunch", "--version"], capture_output=True, text=True, check=True)
    assert version.stdout.startswith("sevlaunch ")
    assert (moved / ".venv/bin/sevlaunch").read_text().startswith(f"#!{moved}/.venv/bin/python")


def test_what_is_not_locked_is_refused(tmp_path: Path) -> None:
    need_index(tmp_path)
    clone = Clone(tmp_path / "clone")
    lock = clone.folder / LOCK[0]
    for content, refusal in (
        (re.sub("sha256:[0-9a-f]{4}", "sha256:0000", lock.read_text()), "DO NOT MATCH THE HASHES"),
        ("pyyaml\n", "versions pinned with =="),
        # 3.12 is there as source alone.
        (f"pyyaml==3.12 --hash=sha256:{'0' * 64}\n", "No matching distribution found for pyyaml==3.12"),
    ):
        lock.write_text(content)
        done = clone.prepare()
        assert done.returncode != 0
        assert refusal in done.stderr, done.stderr
        assert clone.packages.keys() <= {"setuptools"}
        assert not (clone.folder / ".venv/.installed").exists()
