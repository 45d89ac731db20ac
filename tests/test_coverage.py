"""What scripts/test --coverage measures and prints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.long

FIGURES = ROOT / "scripts/coverage_figures.py"


def summary(lines: tuple[int, int], branches: tuple[int, int]) -> dict[str, dict[str, int]]:
    """The figures of one file, as coverage.py writes them."""
    numbers = {"covered_lines": lines[0], "num_statements": lines[1]}
    return {"summary": {**numbers, "covered_branches": branches[0], "num_branches": branches[1]}}


def test_the_figure_of_a_package_is_that_of_all_its_files(tmp_path: Path) -> None:
    files = {
        "sevlaunch/units.py": summary((2, 2), (0, 0)),
        "sevlaunch/owner/chain.py": summary((8, 10), (3, 4)),
        "sevlaunch/owner/verify.py": summary((1999, 2000), (1, 1)),
        "sevlaunch/cli/owner/verify.py": summary((0, 5), (0, 2)),
    }
    (tmp_path / "report.json").write_text(json.dumps({"files": files}))
    done = subprocess.run(
        [sys.executable, FIGURES, tmp_path / "report.json"], capture_output=True, text=True, check=True
    )
    assert [line.split() for line in done.stdout.splitlines()[1:]] == [
        ["sevlaunch", "2/2", "100.0", "%", "none"],
        ["sevlaunch/cli", "0/5", "0.0", "%", "0/2", "0.0", "%"],
        ["sevlaunch/owner", "2007/2010", "99.8", "%", "4/5", "80.0", "%"],
        ["all", "2009/2017", "99.6", "%", "4/7", "57.1", "%"],
    ]


def test_the_command_is_measured_where_a_test_starts_it(tmp_path: Path) -> None:
    data, test = tmp_path / "data", tmp_path / "test.py"
    test.write_text("import subprocess, sys; subprocess.run([sys.executable, '-m', 'sevlaunch', 'policy', '3'])")
    coverage = [sys.executable, "-m", "coverage"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    # This run may be measured itself.
    environment.pop("COVERAGE_PROCESS_CONFIG", None)
    for arguments in (
        ["run", f"--data-file={data}", test],
        ["combine", f"--data-file={data}"],
        ["json", f"--data-file={data}", "-o", tmp_path / "report.json"],
    ):
        subprocess.run([*coverage, *arguments], cwd=ROOT, env=environment, capture_output=True, check=True)
    files = json.loads((tmp_path / "report.json").read_text())["files"]
    assert files["sevlaunch/profile/policy.py"]["summary"]["covered_branches"] > 0
    assert files["sevlaunch/rehearsal/kvm.py"]["summary"]["covered_lines"] == 0
