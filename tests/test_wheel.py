"""A wheel, installed into an empty environment without the lock as users do, works."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import HOSTS, PROFILES, ROOT
from tests.owner.images import ovmf
from tests.packages import need_index

pytestmark = pytest.mark.long


def run(*arguments: str | Path, folder: Path) -> str:
    """What a command prints; nothing of this project is where Python finds it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        list(arguments), cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def make_wheel_of_project(folder: Path) -> Path:
    """The project's wheel, built from a copy, because setuptools writes beside what it reads."""
    source = folder / "source"
    shutil.copytree(ROOT / "sevlaunch", source / "sevlaunch", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    run(
        *(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source),
        folder=folder,
    )
    [wheel] = folder.glob("sevlaunch-*.whl")
    return wheel


def digest(sevlaunch: Path, kind: str, firmware: Path) -> str:
    """The launch digest of the profile of that type, in hexadecimal."""
    profile = PROFILES / f"{kind}.yaml"
    options = ("--firmware", firmware, "--format", "json")
    found = json.loads(run(sevlaunch, "owner", "digest", profile, *options, folder=firmware.parent))
    return str(found["digests"][0]["hex"])


def test_a_wheel_without_the_lock_works(tmp_path: Path) -> None:
    need_index(tmp_path)
    wheel = make_wheel_of_project(tmp_path)
    run(sys.executable, "-m", "venv", tmp_path / "venv", folder=tmp_path)
    python = tmp_path / "venv/bin/python"
    run(python, "-m", "pip", "install", "--quiet", wheel, folder=tmp_path)
    run(python, "-m", "pip", "check", folder=tmp_path)
    where = run(python, "-c", "import sevlaunch; print(sevlaunch.__file__)", folder=tmp_path)
    assert where.startswith(str(tmp_path / "venv"))

    sevlaunch = tmp_path / "venv/bin/sevlaunch"
    assert "debian-13" in run(sevlaunch, "image", "ls", "--known", folder=tmp_path)
    assert "Usage: sevlaunch" in run(sevlaunch, "--help", folder=tmp_path)
    host = HOSTS / "milan-qemu-10.0.json"
    rendered = run(sevlaunch, "render", PROFILES / "sev.yaml", "--host", host, folder=tmp_path)
    assert "sev-guest,id=" in rendered
    firmware = tmp_path / "ovmf.fd"
    firmware.write_bytes(ovmf())
    assert digest(sevlaunch, "sev", firmware) == hashlib.sha256(firmware.read_bytes()).hexdigest()
    # Whether that of SNP is right is tested elsewhere, against sev-snp-measure.
    assert len(bytes.fromhex(digest(sevlaunch, "sev-snp", firmware))) == 48
