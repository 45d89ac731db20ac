"""Packages made on the spot, and whether an index of packages can be reached."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

from dependencies import UvError, uv


def make_wheel(folder: Path, name: str, version: str, code: str) -> Path:
    """A wheel of one module, without requirements."""
    file = folder / f"{name}-{version}-py3-none-any.whl"
    information = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(file, "w") as wheel:
        wheel.writestr(f"{name}.py", code)
        wheel.writestr(f"{information}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(f"{information}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{information}/RECORD", "")
    return file


def need_index(folder: Path) -> None:
    """Skips by name where no index of packages answers; ``folder`` is for what that needs."""
    try:
        uv("pip", "compile", "--no-cache", "--output-file", folder / "probe.txt", "-", given="iniconfig")
    except UvError as error:
        pytest.skip(f"no package index can be reached: {str(error).splitlines()[0]}")
