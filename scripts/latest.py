"""Runs the checks of scripts/test against the newest and the oldest releases that pyproject.toml allows.

What fails there, and passes with the lock, is run again with one package after another replaced in the lock, so that
the report names the package that broke it. UV_FIND_LINKS and uv's other variables say where releases come from.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from dependencies import ROOT, UvError, locked, resolve, uv, versions

RELEASES = {"newest": ("--upgrade",), "oldest": ("--resolution", "lowest-direct")}

_LINTERS: dict[str, tuple[str, ...]] = {
    "ruff check": ("ruff", "check", "--no-cache", "."),
    "ruff format --check": ("ruff", "format", "--no-cache", "--check", "."),
    "mypy": ("mypy",),
}
# What stands for all tests where pytest does not get as far as running one.
_PYTEST = "pytest as a whole"
# pytest's exit codes for tests that fail, and for files that can't be imported.
_TOLD = (1, 2)


@dataclass(frozen=True)
class Checks:
    """What is run: the linters by name, and pytest with its arguments."""

    linters: tuple[str, ...]
    arguments: tuple[str, ...]

    def run(self, venv: Path) -> set[str]:
        """Run all in a virtual environment, shown as they run; the names of the linters and tests that fail."""
        failed = {name for name in self.linters if not _passes(venv, name, show=True)}
        return failed | self._run_tests(venv, None, show=True)

    def still_failing(self, venv: Path, failures: set[str]) -> set[str]:
        """Those of ``failures`` that fail in this virtual environment, too."""
        failed = {name for name in failures & set(_LINTERS) if not _passes(venv, name)}
        tests = failures - set(_LINTERS)
        if not tests:
            return failed
        now = self._run_tests(venv, tests)
        # A file that can't be imported fails as a whole.
        return failed | {test for test in tests if now & {test, test.partition("::")[0], _PYTEST}}

    def _run_tests(self, venv: Path, only: set[str] | None, *, show: bool = False) -> set[str]:
        with tempfile.TemporaryDirectory() as folder:
            # pytest's own record of what failed, which it can run again.
            record = Path(folder) / "v/cache/lastfailed"
            arguments = [*self.arguments, "-o", f"cache_dir={folder}"]
            if only == {_PYTEST}:
                arguments.append("--collect-only")
            elif only:
                record.parent.mkdir(parents=True)
                record.write_text(json.dumps(dict.fromkeys(only, True)))
                arguments += ["--last-failed", "--last-failed-no-failures", "none"]
            code = _run(venv, "pytest", *arguments, show=show)
            failed = set(json.loads(record.read_text())) if record.exists() else set()
        if code == 0:
            return set()
        return failed if failed and code in _TOLD else {*failed, _PYTEST}


@dataclass
class Findings:
    """What became of one set of releases."""

    blamed: dict[str, set[str]] = field(default_factory=dict)
    """What fails, by the release that breaks it."""
    together: set[str] = field(default_factory=set)
    """What no one release breaks alone."""
    with_lock: set[str] = field(default_factory=set)
    """What fails with the lock as well."""
    unsteady: set[str] = field(default_factory=set)
    """What failed once and passed when run again."""

    def lines(self) -> list[str]:
        """The findings in words."""
        found = [(f"{release} breaks", tests) for release, tests in self.blamed.items()]
        found += [
            ("no one release alone breaks", self.together),
            ("fails with the locked releases, too", self.with_lock),
            ("failed once, and passed when run again", self.unsteady),
        ]
        return [
            line for title, tests in found if tests for line in (f"{title}:", *(f"  {test}" for test in sorted(tests)))
        ]

    @property
    def good(self) -> bool:
        """Whether nothing fails each time, and pytest got to its end."""
        return not (self.blamed or self.together or self.with_lock or _PYTEST in self.unsteady)


def main() -> int:
    """Run as the command line says: 0 when everything passes with all releases, 1 when not."""
    parser = argparse.ArgumentParser(prog="scripts/test --latest", description=__doc__, allow_abbrev=False)
    parser.add_argument("--only", choices=RELEASES, help="one set of releases; default: newest, then oldest")
    parser.add_argument("--without-linters", action="store_true", help="run pytest alone; it gets all other arguments")
    parser.add_argument("--venvs", type=Path, default=ROOT / "build/venvs", help="where virtual environments are made")
    options, arguments = parser.parse_known_args()
    end_on_sigterm()
    checks = Checks(() if options.without_linters else tuple(_LINTERS), tuple(arguments))
    report = []
    good = True
    try:
        trial = Trial(checks, options.venvs, _resolved(locked(ROOT)))
        for name in [options.only] if options.only else RELEASES:
            findings, releases = trial.judge(name)
            good = good and findings.good
            report += [f"{name}: {releases}", *(f"{name}: {line}" for line in findings.lines() or ["all passes"])]
    except UvError as error:
        _say(str(error))
        return 1
    for line in report:
        _say(line)
    return 0 if good else 1


@dataclass(frozen=True)
class Trial:
    """Checks that are run with releases other than those of the lock, in virtual environments in one folder."""

    checks: Checks
    venvs: Path
    lock: dict[str, str]

    def judge(self, name: str) -> tuple[Findings, str]:
        """What was found with the newest or the oldest releases, and which of them the lock has not.

        :raise UvError: when the releases can't be resolved or installed.
        """
        wanted = _resolved("", *RELEASES[name])
        changed = {package: version for package, version in wanted.items() if self.lock.get(package) != version}
        releases = self._described(changed)
        _say(f"{name}: {releases}")
        venv = self._make_venv(name, wanted)
        return self._explain(venv, changed, self.checks.run(venv)), releases

    def _explain(self, venv: Path, changed: dict[str, str], failures: set[str]) -> Findings:
        findings = Findings()
        if not failures:
            return findings
        rest = self.checks.still_failing(venv, failures)
        findings.unsteady = failures - rest
        findings.with_lock = self.checks.still_failing(self._make_venv("locked", self.lock), rest)
        rest -= findings.with_lock
        replaced = [self._replaced(package, version) for package, version in changed.items()] if rest else []
        # A release that needs others than those of the lock comes after these were tried alone.
        for different in sorted(replaced, key=len):
            if not rest:
                break
            _say(f"with {self._described(different)}")
            broken = self.checks.still_failing(self._make_venv("one-replaced", {**self.lock, **different}), rest)
            if broken:
                findings.blamed[self._described(different)] = broken
            rest -= broken
        findings.together = rest
        return findings

    def _replaced(self, package: str, version: str) -> dict[str, str]:
        """A release, and after it those that it needs instead of those of the lock."""
        found = _resolved(locked(ROOT), "--upgrade-package", f"{package}=={version}")
        others = {name: other for name, other in found.items() if self.lock.get(name) != other}
        return {package: version, **others}

    def _described(self, changed: dict[str, str]) -> str:
        words = [f"{name} {version} (locked: {self.lock.get(name, 'none')})" for name, version in changed.items()]
        return ", ".join(words) or "the locked releases"

    def _make_venv(self, name: str, pins: dict[str, str]) -> Path:
        venv = self.venvs / name
        into = ("--quiet", "--python", venv / "bin/python", "--no-deps")
        uv("venv", "--quiet", "--clear", *_PYTHON, venv)
        lines = "\n".join(f"{package}=={version}" for package, version in pins.items())
        uv("pip", "install", *into, "--only-binary", ":all:", "--requirements", "-", given=lines)
        uv("pip", "install", *into, "--no-build-isolation", "-C", "editable_mode=compat", "--editable", ROOT)
        return venv


# The releases for the Python that runs this.
_PYTHON = ("--python", sys.executable)


def _resolved(pins: str, *options: str) -> dict[str, str]:
    """The version of each package that pyproject.toml asks for; those in ``pins`` where ``options`` allow."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pins.txt"
        file.write_text(pins)
        return versions(resolve(ROOT, file, *options, *_PYTHON))


def _passes(venv: Path, linter: str, *, show: bool = False) -> bool:
    options = ("--cache-dir", str(venv / "mypy-cache")) if linter == "mypy" else ()
    return _run(venv, *_LINTERS[linter], *options, show=show) == 0


def _run(venv: Path, module: str, *arguments: str, show: bool) -> int:
    if show:
        _say(" ".join((module, *arguments)))
    output = None if show else subprocess.DEVNULL
    command = [str(venv / "bin/python"), "-m", module, *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output) as process:
        try:
            return process.wait()
        except BaseException:
            # pytest takes this as Ctrl-C: what its tests started is ended before it is.
            process.send_signal(signal.SIGINT)
            raise


def end_on_sigterm() -> None:
    """SIGTERM ends this program as an exception would, so that what it runs is ended with it."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


def _say(text: str) -> None:
    print(f"latest: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
