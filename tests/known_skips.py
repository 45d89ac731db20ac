"""Skips are known: with ``--known-skips`` a session fails when a test skips that tests/known-skips.toml does not list.

The file has a table for each kind of machine::

    [no-kvm]
    machine = "without /dev/kvm"

    [no-kvm.skips]
    "no /dev/kvm" = ["tests/rehearsal/test_launch.py::*", "tests/libvirt/test_suse.py::*"]

A skip is known when a kind lists its reason for its test and this machine is of that kind. Which kinds this machine is
of is asked from tests/machine.py, only when something was skipped. ``*`` stands for any text, everything else for
itself.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

_REMOTE = "sevlaunch_skipped_modules"


@dataclass(frozen=True, order=True)
class Skip:
    """A test, or a whole module, that was skipped."""

    test: str
    reason: str


@dataclass(frozen=True)
class Kind:
    """A kind of machine: what tells it, in words, and who may skip there for which reasons."""

    name: str
    machine: str
    skips: Mapping[str, list[str]]

    def lists(self, skip: Skip) -> bool:
        """Whether this test may skip for this reason on machines of this kind."""
        return any(
            matches(reason, skip.reason) and any(matches(test, skip.test) for test in tests)
            for reason, tests in self.skips.items()
        )


def matches(pattern: str, text: str) -> bool:
    """Whether ``text`` is what ``pattern`` says; a ``*`` in it stands for any text."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text, re.DOTALL) is not None


def load_kinds(file: Path) -> list[Kind]:
    """The kinds of machines of a file such as tests/known-skips.toml.

    :raises TypeError: something is missing, or is not known.
    """
    return [Kind(name, **table) for name, table in tomllib.loads(file.read_text()).items()]


def complaint(skip: Skip, kinds: Iterable[Kind], is_of: Callable[[str], bool]) -> str:
    """Why a skip is not known, or nothing.

    :param is_of: whether this machine is of a kind.
    """
    listing = [kind for kind in kinds if kind.lists(skip)]
    if any(is_of(kind.name) for kind in listing):
        return ""
    told = f"{skip.test} skipped: {skip.reason}"
    if not listing:
        return f"{told}\n    not listed in tests/known-skips.toml"
    elsewhere = " or ".join(f"{kind.name} ({kind.machine})" for kind in listing)
    return f"{told}\n    listed for machines of the kind {elsewhere}; this one is none"


def skips_of(reports: Iterable[pytest.TestReport | pytest.CollectReport]) -> Iterator[Skip]:
    """What was skipped; an expected failure is no skip."""
    for report in reports:
        if report.skipped and not hasattr(report, "wasxfail"):
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            yield Skip(report.nodeid, reason.removeprefix("Skipped: "))


class KnownSkips:
    """The plugin, in the process that judges the session; with pytest-xdist the others tell it what they collected."""

    def __init__(self, file: Path, is_of: Callable[[str], bool]) -> None:
        self.file = file
        self.is_of = is_of
        self.skips: list[Skip] = []
        self.complaints: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remember a skipped test."""
        self.skips += skips_of([report])

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Remember a skipped module."""
        self.skips += skips_of([report])

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """Take over the modules that a process of pytest-xdist skipped."""
        self.skips += [Skip(*one) for one in getattr(node, "workeroutput", {}).get(_REMOTE, [])]

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Judge; a skip that is not known is as bad as a failed test."""
        kinds = load_kinds(self.file)
        found = [complaint(skip, kinds, self.is_of) for skip in sorted(set(self.skips))]
        self.complaints = [one for one in found if one]
        if self.complaints and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Say which skips are not known."""
        if self.complaints:
            terminalreporter.section("skips that are not known", red=True)
            for one in self.complaints:
                terminalreporter.line(one, red=True)


class SkippedModules:
    """The plugin in a process of pytest-xdist, which tells of tests by itself but not of skipped modules."""

    def __init__(self, output: dict[str, Any]) -> None:
        self.found: list[tuple[str, str]] = []
        output[_REMOTE] = self.found

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Remember a skipped module."""
        self.found += [(skip.test, skip.reason) for skip in skips_of([report])]


def watch(config: pytest.Config, file: Path, is_of: Callable[[str], bool]) -> None:
    """Judge this session's skips by a file."""
    output = getattr(config, "workeroutput", None)
    plugin = KnownSkips(file, is_of) if output is None else SkippedModules(output)
    config.pluginmanager.register(plugin)
