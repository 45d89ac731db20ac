"""Every example in docs/ and examples/ runs as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, Command
from tests.rehearsal.owner import needs_kvm

_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(name: str) -> list[str]:
    """The Python examples of a document."""
    return _BLOCK.findall((ROOT / "docs" / name).read_text())


def run(command: Command, *arguments: str | Path, cwd: Path = ROOT, code: int = 0) -> str:
    """What Python prints."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**command.environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("number", range(len(blocks("embedding.md"))))
def test_an_example_of_embedding(number: int, sevlaunch: Command) -> None:
    assert run(sevlaunch, "-c", blocks("embedding.md")[number])
    # A guest that was detached leaves its logs until it is taken down.
    sevlaunch("down", "--all")
    assert sevlaunch.left_behind() == []


@pytest.mark.parametrize("number", range(len(blocks("testing.md"))))
def test_an_example_of_testing(number: int, sevlaunch: Command, demo: Path) -> None:
    test = blocks("testing.md")[number]
    if '"sev"' in test:
        needs_kvm()
    file = sevlaunch.base / "test_example.py"
    file.write_text(test)
    output = run(sevlaunch, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "--rootdir", sevlaunch.base, file)
    assert re.search(r"\d (passed|skipped)", output)


def test_the_example_suite(sevlaunch: Command, demo: Path) -> None:
    assert "1 passed" in run(sevlaunch, "-m", "pytest", "-q", "-p", "no:cacheprovider", "examples/test_demo.py")


def test_the_example_tool(sevlaunch: Command) -> None:
    tool = ROOT / "examples/tiny_hypervisor.py"
    assert len(tool.read_text().splitlines()) < 80
    output = run(sevlaunch, tool, "profiles/plain.yaml", "--guests", "2", "--seconds", "2")
    assert "pool-1: pid" in output
    assert "pool-2: ended" in output
    assert sevlaunch.left_behind() == []
