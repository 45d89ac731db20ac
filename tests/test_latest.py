"""scripts/test --latest names the release that breaks something, and tells that from what fails for other reasons."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, wait_until
from tests.packages import make_wheel, need_index

sys.path.insert(0, str(ROOT / "scripts"))

from dependencies import locked, versions
from latest import Checks

pytestmark = pytest.mark.long

TESTS = """
from importlib.metadata import version
from pathlib import Path

import pytest

def test_fine(): ...

@pytest.mark.parametrize("text", ["a - b", "[\\n]"])
def test_validates(text):
    import jsonschema
    jsonschema.Draft202012Validator({}).validate(text)

def test_detects():
    import shellingham
    assert shellingham.detect_shell

def test_never(): assert False

def test_once():
    first = Path(__file__).with_name("first")
    assert first.exists() or first.touch()

def test_not_both():
    assert version("jsonschema") != "99.0" or version("types-PyYAML") != "99.0"
"""

MADE = {
    "jsonschema": "def Draft202012Validator(schema): raise TypeError('broken on purpose')",
    "shellingham": "",
    "types_pyyaml": "",
}


def test_what_breaks_is_named(tmp_path: Path) -> None:
    need_index(tmp_path)
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for name, code in MADE.items():
        make_wheel(wheels, name, "99.0", code)
    # The newest releases are those of the lock but for these, whatever else has come out.
    lock = versions(locked(ROOT))
    made = [name.replace("_", "-") for name in MADE]
    kept = tmp_path / "kept.txt"
    kept.write_text("".join(f"{name}=={version}\n" for name, version in lock.items() if name not in made))
    tests = tmp_path / "test_probe.py"
    tests.write_text(TESTS)
    options = ("--only", "newest", "--without-linters", "--venvs", tmp_path / "venvs")
    arguments = ("-n", "2", "--dist", "loadfile", "-c", ROOT / "pyproject.toml", "--rootdir", tmp_path, tests)
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/latest.py", *options, *arguments],
        env={**os.environ, "UV_FIND_LINKS": str(wheels), "UV_CONSTRAINT": str(kept)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    released = {name: f"{name} 99.0 (locked: {lock[name]})" for name in made}
    lines = [line.removeprefix("latest: newest: ") for line in done.stderr.splitlines() if "latest: newest: " in line]
    assert lines[1:] == [
        ", ".join(released.values()),
        f"{released['jsonschema']} breaks:",
        "  test_probe.py::test_validates[[\\n]]",
        "  test_probe.py::test_validates[a - b]",
        f"{released['shellingham']} breaks:",
        "  test_probe.py::test_detects",
        "no one release alone breaks:",
        "  test_probe.py::test_not_both",
        "fails with the locked releases, too:",
        "  test_probe.py::test_never",
        "failed once, and passed when run again:",
        "  test_probe.py::test_once",
    ]


def test_a_pytest_that_does_not_start_is_a_failure_of_its_own() -> None:
    venv = Path(sys.prefix)
    checks = Checks((), ("--no-such-option",))
    assert checks.run(venv) == {"pytest as a whole"}
    failures = {"pytest as a whole", "tests/test_lock.py::test_x"}
    assert checks.still_failing(venv, failures) == failures
    assert Checks((), (str(ROOT / "tests/test_lock.py"),)).still_failing(venv, {"pytest as a whole"}) == set()


def test_a_file_that_can_not_be_imported_is_told(tmp_path: Path) -> None:
    (tmp_path / "test_probe.py").write_text("import no_such_module\n")
    checks = Checks((), ("-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path), str(tmp_path)))
    assert checks.run(Path(sys.prefix)) == {"test_probe.py"}
    failures = {"test_probe.py::test_one"}
    assert checks.still_failing(Path(sys.prefix), failures) == failures


# A test that lasts until it is ended, and what is run around it.
ENDLESS = """
import time
from pathlib import Path

def test_endless():
    folder = Path(__file__).parent
    try:
        (folder / "runs").touch()
        time.sleep(600)
    finally:
        (folder / "ended").touch()
"""
RUNS = "import sys; from pathlib import Path; import latest; latest.end_on_sigterm()"


def test_what_is_run_ends_with_the_program_that_runs_it(tmp_path: Path) -> None:
    (tmp_path / "test_probe.py").write_text(ENDLESS)
    arguments = ("-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path), str(tmp_path))
    code = f"{RUNS}; latest.Checks((), {arguments}).run(Path(sys.prefix))"
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT / "scripts", stdout=subprocess.DEVNULL) as process:
        wait_until((tmp_path / "runs").exists, 60, "the test that is run")
        process.terminate()
        assert process.wait(60) == 128 + signal.SIGTERM
    assert (tmp_path / "ended").exists()


def test_a_linter_that_passes_is_no_failure() -> None:
    checks = Checks(("ruff check",), ())
    assert checks.still_failing(Path(sys.prefix), {"ruff check"}) == set()


def test_releases_that_can_not_be_had_are_told(tmp_path: Path) -> None:
    nowhere = {"UV_OFFLINE": "1", "UV_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/latest.py", "--only", "oldest", "--without-linters"],
        env={**os.environ, **nowhere},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "network" in done.stderr, done.stderr
