"""What stands in a stranger's file: a documented exit code, nothing a terminal acts on, bounded time and memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.guest.support import tries
from tests.mutants.kinds import KINDS


@tries(200, 10_000)
@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_file_ends_in_a_documented_way(kind: str, count: int, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.mutants.run", kind, str(count), "0", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path / "none"), "XDG_STATE_HOME": str(tmp_path / "none")},
        capture_output=True,
        text=True,
        timeout=3600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["findings"] == []
    assert sum(found["codes"].values()) == count
    # They reach the commands, and not all of them are refused at the door.
    assert len(found["codes"]) > 1
