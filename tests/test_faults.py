"""The tests can fail: each fault of tests/faults.py is put into a copy of the project, and its tests notice.

That takes minutes, and is done with::

    scripts/test --soak tests/test_faults.py

In every run the list has to fit the files: who changes such a line changes the list with it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.fault import Fault
from tests.faults import FAULTS

_LEFT_OUT = shutil.ignore_patterns(".*", "build", "*.egg-info", "__pycache__")


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_fault_can_be_put_in(fault: Fault) -> None:
    assert (ROOT / fault.file).read_text().count(fault.old) == 1
    for test in fault.tests:
        file, _, name = test.partition("::")
        assert f"def {name}(" in (ROOT / file).read_text()


@pytest.mark.soak
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_fault_is_noticed(fault: Fault, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(ROOT, copy, ignore=_LEFT_OUT)
    assert failed(copy, fault) == set()
    file = copy / fault.file
    file.write_text(file.read_text().replace(fault.old, fault.new))
    assert failed(copy, fault) == set(fault.tests)


def failed(copy: Path, fault: Fault) -> set[str]:
    """Those of the fault's tests that fail in ``copy``."""
    options = ("-q", "-rf", "--tb=no", "-p", "no:cacheprovider", "-m", "not soak")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *fault.tests],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy), "SEVLAUNCH_SOAK": ""},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    # 0: all passed; 1: some failed. Anything else, such as a file that can't be imported, is no answer.
    assert done.returncode in (0, 1), done.stdout + done.stderr
    lines = [line.removeprefix("FAILED ") for line in done.stdout.splitlines() if line.startswith("FAILED ")]
    return {line.split(" ")[0].partition("[")[0] for line in lines}
