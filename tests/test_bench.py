"""The benchmark measures what it says and judges as it says; what it finds is no matter of tests."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

from benchmarks import against
from benchmarks.imports import by_package
from benchmarks.measuring import Setting, Target, Verdict, alternate, peak_memory, summarise

MEDIANS = {"base": 100.0, "fast": 105.0, "slow": 240.0}


@pytest.mark.parametrize(
    ("target", "name", "found", "met"),
    [
        (Target("base", more=10), "fast", "+5.0", True),
        (Target("base", more=10), "slow", "+140.0", False),
        (Target("base", ratio=1.1), "fast", "1.05", True),
        (Target("base", ratio=1.1), "slow", "2.40", False),
        (Target("slow", ratio=0.5), "fast", "0.44", True),
    ],
)
def test_a_target_is_judged(target: Target, name: str, found: str, met: bool) -> None:
    verdict = target.judge(MEDIANS, name)
    assert verdict
    assert (verdict.found, verdict.met) == (found, met)


def test_without_its_base_a_target_is_not_judged() -> None:
    assert Target("missing", ratio=1).judge(MEDIANS, "fast") is None


def test_candidates_take_turns_and_only_their_start_is_counted() -> None:
    order: list[str] = []

    @contextmanager
    def candidate(name: str) -> Iterator[None]:
        order.append(f"{name} in")
        yield
        order.append(f"{name} out")

    times = alternate({"a": lambda: candidate("a"), "b": lambda: candidate("b")}, 2)
    forwards, backwards = ["a in", "a out", "b in", "b out"], ["b in", "b out", "a in", "a out"]
    assert order == [*forwards, *backwards, *forwards]
    assert {name: len(values) for name, values in times.items()} == {"a": 2, "b": 2}


def test_a_line_has_the_median_and_the_ratio_to_the_first() -> None:
    lines = summarise({"base": [1, 2, 90], "other": [4, 4, 4]}, {"other": [Target("base", ratio=1.5)]})
    assert [(line.name, line.median, line.ratio) for line in lines] == [("base", 2, 1), ("other", 4, 2)]
    assert lines[1].verdicts == (Verdict("at most 1.5 of base", "2.00", False),)


def test_peak_memory_is_that_of_the_command() -> None:
    # A process that was started by this one would have this one's memory in its account.
    ballast = b"x" * (200 << 20)
    small = peak_memory([sys.executable, "-I", "-S", "-c", "pass"])
    large = peak_memory([sys.executable, "-I", "-S", "-c", "b'x' * (100 << 20)"])
    assert len(ballast) > large > small + (90 << 20)
    assert small < 50 << 20


def test_another_revision_takes_turns_with_this_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project, ran = tmp_path / "project", tmp_path / "ran"
    (project / "sevlaunch").mkdir(parents=True)
    (project / "sevlaunch/__init__.py").touch()
    git = [
        "git",
        "-C",
        str(project),
        "-c",
        "user.name=a",
        "-c",
        "user.email=a@example.org",
        "-c",
        "init.defaultBranch=main",
    ]
    subprocess.run([*git, "init", "-q"], check=True)
    for which in ("old", "new"):
        program = f"import sys\nopen({str(ran)!r}, 'a').write(' '.join(['{which}', *sys.argv[1:]]) + '\\n')\n"
        (project / "sevlaunch/__main__.py").write_text(program)
        subprocess.run([*git, "add", "."], check=True)
        subprocess.run([*git, "commit", "-q", "-m", which], check=True)
    # What is not committed yet is measured, too.
    (project / "sevlaunch/__main__.py").write_text(program.replace("'new'", "'now'"))
    monkeypatch.setattr(against, "ROOT", project)

    result = against.against("HEAD~1", Setting("auto", Path(), 1), {"up": "up {root}/a"})

    [old] = (project / "build/against").iterdir()
    once = [f"old up {old}/a", "old down plain --now", f"now up {project}/a", "now down plain --now"]
    # The round that is not counted, and one backwards.
    assert ran.read_text().splitlines() == [*once, *once[2:], *once[:2]]
    assert [line.name for line in result.lines] == [f"up, {old.name}", "up"]
    assert [verdict.target for verdict in result.verdicts] == [f"at most 1 of up, {old.name}"]
    assert against.checkout("HEAD~1") == (old.name, old)
    with pytest.raises(SystemExit, match="no-such-revision"):
        against.checkout("no-such-revision")


def test_imports_count_for_the_package_that_wants_them() -> None:
    report = (
        "import time: self [us] | cumulative | imported package\n"
        "import time:       100 |        100 | site\n"
        "import time:         7 |          7 |     json\n"
        "import time:        20 |         27 |   typer.main\n"
        "import time:         3 |         30 | typer\n"
        "import time:        40 |         40 |   msgspec\n"
        "import time:         5 |         45 | sevlaunch.errors\n"
    )
    assert by_package(report) == {"python": 100, "typer": 30, "msgspec": 40, "sevlaunch": 5}


def test_sections_print_their_tables_and_verdicts(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    file.write_text('{"start": "of another run", "commands": "too"}')
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/bench.py"), "commands", "--rounds", "2", "--json", str(file)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert json.loads(file.read_text())["start"] == "of another run"
    result = json.loads(file.read_text())["commands"]
    assert [line["name"] for line in result["lines"]] == ["python -c pass", "--help", "check", "render"]
    verdicts = [verdict for line in result["lines"] for verdict in line["verdicts"]]
    assert len(verdicts) == 2
    # What it says is what it ends with.
    assert done.returncode == (0 if all(verdict["met"] for verdict in verdicts) else 1), done.stderr
    assert len(re.findall(r"^  (pass|FAIL)  ", done.stdout, re.MULTILINE)) == 2
    assert "python -c pass" in done.stdout
