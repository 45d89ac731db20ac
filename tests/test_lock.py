"""The lock in requirements/: in step with pyproject.toml, and what notices when it is not."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.packages import need_index

sys.path.insert(0, str(ROOT / "scripts"))

from dependencies import LOCK, UvError
from lock import complaints, renew


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A folder with pyproject.toml and the lock."""
    for name in ("pyproject.toml", *LOCK):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def edit(file: Path, old: str, new: str) -> None:
    """Replace ``old``, which has to be there."""
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_the_lock_is_in_step_with_pyproject() -> None:
    done = subprocess.run([ROOT / "scripts/lock", "--check"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.parametrize(
    ("file", "old", "new", "found"),
    [
        ("pyproject.toml", '"pyyaml>=6.0.2"', '"pyyaml>=5"', "requirements/run.txt was made without pyyaml>=5"),
        (
            "pyproject.toml",
            '    "pyyaml>=6.0.2",\n',
            "",
            "requirements/run.txt was made for pyyaml>=6.0.2, which is no more",
        ),
        ("pyproject.toml", "setuptools>=77", "setuptools>=1", "requirements/run.txt was made without setuptools>=1"),
        (
            "pyproject.toml",
            "test = [\n",
            'test = [\n    "other",\n',
            "requirements/test.txt was made without other",
        ),
        ("requirements/run.txt", "\npyyaml==6", "\npyyaml==5", "requirements/run.txt has 5.0.4 for pyyaml>=6.0.2"),
        ("requirements/run.txt", "\nqemu-qmp==", "\nother==", "requirements/run.txt has nothing for qemu.qmp"),
        ("requirements/test.txt", "--hash=sha256:", "--hash=md5:", "requirements/test.txt has no hash for attrs"),
    ],
)
def test_a_lock_that_is_not_in_step_is_told(file: str, old: str, new: str, found: str, copy: Path) -> None:
    assert complaints(copy) == []
    edit(copy / file, old, new)
    assert any(complaint.startswith(found) for complaint in complaints(copy)), complaints(copy)


def test_a_missing_part_of_the_lock_is_told(copy: Path) -> None:
    (copy / LOCK[1]).unlink()
    assert complaints(copy) == ["requirements/test.txt is missing"]


def test_the_lock_names_no_place() -> None:
    for name in LOCK:
        text = (ROOT / name).read_text()
        assert not [word for word in ("://", "--index", "--find-links", "file:", "/tmp", str(ROOT)) if word in text]


def test_keeping_changes_only_what_the_ranges_call_for(copy: Path, tmp_path: Path) -> None:
    need_index(tmp_path)
    before = {name: (copy / name).read_text() for name in LOCK}
    renew(copy, keep=True)
    assert {name: (copy / name).read_text() for name in LOCK} == before
    edit(copy / "pyproject.toml", '    "sev-snp-measure', '    "six==1.16.0",\n    "sev-snp-measure')
    renew(copy, keep=True)
    assert complaints(copy) == []
    after = (copy / LOCK[0]).read_text()
    assert "\nsix==1.16.0 \\\n    --hash=sha256:" in after
    kept = [line for line in before[LOCK[0]].splitlines() if not line.startswith("#")]
    assert set(kept) <= set(after.splitlines())
    assert (copy / LOCK[1]).read_text() == before[LOCK[1]]


def test_what_can_not_be_resolved_leaves_the_lock_as_it_was(copy: Path, tmp_path: Path) -> None:
    need_index(tmp_path)
    before = [(copy / name).read_text() for name in LOCK]
    edit(copy / "pyproject.toml", "msgspec>=0.20", "msgspec>=0.20,<0.5")
    with pytest.raises(UvError, match="msgspec"):
        renew(copy, keep=False)
    assert [(copy / name).read_text() for name in LOCK] == before
