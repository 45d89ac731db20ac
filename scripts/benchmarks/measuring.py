"""Candidates take turns in one run, so that whatever else the machine does hits all of them alike."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sevlaunch.cli.output import table

# What is measured is the entering of the context; leaving it cleans up.
Candidate = Callable[[], AbstractContextManager[None]]

ROOT = Path(__file__).resolve().parents[2]
PLAIN = ROOT / "profiles/plain.yaml"
MEBIBYTE = 1 << 20
# Where runtime folders are: in memory, as systemd has them. None: with all other temporary files.
RUNTIME = "/dev/shm" if Path("/dev/shm").is_dir() else None
# Of a printed table; the last one where commands are measured.
HEADINGS = ("", "ms", "spread", "ratio", "MiB")
# Prints the peak of the memory of a command: that of this process's children, which a large one would falsify.
_PEAK = (
    "import os, resource, sys\n"
    "null = os.open(os.devnull, os.O_RDWR)\n"
    "moves = [(os.POSIX_SPAWN_DUP2, null, number) for number in (0, 1)]\n"
    "pid = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=moves)\n"
    "_, status, usage = os.wait4(pid, 0)\n"
    "print(usage.ru_maxrss)\n"
    "sys.exit(os.waitstatus_to_exitcode(status))\n"
)


@dataclass(frozen=True)
class Setting:
    """What a section is run with: the QEMU, an OVMF image for SEV-ES and SNP, and how often."""

    qemu: str
    firmware: Path
    rounds: int


@dataclass(frozen=True)
class Target:
    """What a candidate may take: at most ``more`` milliseconds more than ``base``, or ``ratio`` of its time."""

    base: str
    more: float | None = None
    ratio: float | None = None

    def judge(self, medians: Mapping[str, float], name: str) -> Verdict | None:
        """Whether the candidate ``name`` keeps to it; None where the base was not measured."""
        if self.base not in medians:
            return None
        value, base = medians[name], medians[self.base]
        if self.more is not None:
            return Verdict(
                f"at most {self.more:g} ms above {self.base}", f"{value - base:+.1f}", value <= base + self.more
            )
        assert self.ratio is not None, "a target is one of the two"
        return Verdict(f"at most {self.ratio:g} of {self.base}", f"{value / base:.2f}", value <= base * self.ratio)


@dataclass(frozen=True)
class Verdict:
    """A target in words, what was found, and whether that is within."""

    target: str
    found: str
    met: bool


@dataclass(frozen=True)
class Line:
    """A line of the table: milliseconds, a ratio to the first line, and a command's peak memory in bytes."""

    name: str
    median: float
    spread: float
    ratio: float
    verdicts: tuple[Verdict, ...]
    memory: int | None = None


@dataclass(frozen=True)
class Result:
    """What a section found: its lines, verdicts that are not about time, and where the time goes."""

    lines: tuple[Line, ...]
    further: tuple[Verdict, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def verdicts(self) -> list[Verdict]:
        """All of them."""
        return [*(verdict for line in self.lines for verdict in line.verdicts), *self.further]


def alternate(candidates: Mapping[str, Candidate], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each candidate, round by round; one round before that is not counted.

    Every other round goes backwards, so that no candidate always has the same one before it.
    """
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(rounds + 1):
        turns = list(candidates.items())
        for name, candidate in turns[::-1] if number % 2 else turns:
            if sys.stderr.isatty():
                print(f"\r\033[Kround {number} of {rounds}: {name}", end="", file=sys.stderr, flush=True)
            context = candidate()
            start = time.perf_counter()
            with context:
                took = time.perf_counter() - start
            if number:
                times[name].append(took * 1000)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)
    return times


def summarise(
    times: Mapping[str, list[float]],
    targets: Mapping[str, Sequence[Target]],
    memory: Mapping[str, int] = MappingProxyType({}),
) -> tuple[Line, ...]:
    """Medians, quartile distance, and the targets; the first candidate is what ratios are to.

    :param memory: the peak memory in bytes of the candidates that are commands.
    """
    medians = {name: statistics.median(values) for name, values in times.items()}
    base = next(iter(medians.values()))
    lines = []
    for name, values in times.items():
        low, _, high = statistics.quantiles(values, n=4) if len(values) > 1 else (values[0],) * 3
        judged = [target.judge(medians, name) for target in targets.get(name, ())]
        verdicts = tuple(verdict for verdict in judged if verdict)
        lines.append(Line(name, medians[name], high - low, medians[name] / base, verdicts, memory.get(name)))
    return tuple(lines)


def print_result(title: str, result: Result) -> None:
    """The table, and a line for each target."""
    headings = HEADINGS if any(line.memory for line in result.lines) else HEADINGS[:-1]
    rows = [row(line)[: len(headings)] for line in result.lines]
    if rows:
        print("\n".join([title, *table(headings, rows)]))
    for line in result.lines:
        for verdict in line.verdicts:
            _print_verdict(f"{line.name}: {verdict.target}", verdict)
    for verdict in result.further:
        _print_verdict(verdict.target, verdict)
    for note in result.notes:
        print(f"  note  {note}")
    print()


def row(line: Line) -> tuple[str, ...]:
    """The cells of a line, below ``HEADINGS``."""
    memory = "" if line.memory is None else f"{line.memory / MEBIBYTE:.0f}"
    return line.name, f"{line.median:.1f}", f"{line.spread:.1f}", f"{line.ratio:.2f}", memory


def _print_verdict(text: str, verdict: Verdict) -> None:
    print(f"  {'pass' if verdict.met else 'FAIL'}  {text} (found {verdict.found})")


def peak_memory(command: Sequence[str | Path]) -> int:
    """The most memory that a command has at once, in bytes; what it leaves running is not counted."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _PEAK, *map(str, command)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}: exit {done.returncode}: {done.stderr}")
    return int(done.stdout.splitlines()[-1]) * 1024


def run_quietly(command: Sequence[str | Path], **options: Any) -> None:
    """Run a command that must succeed; its output is read and dropped. ``options``: as for subprocess.run()."""
    words = [str(word) for word in command]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, **options)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}: exit {done.returncode}: {done.stderr}")


def missed(lines: Sequence[Line]) -> list[str]:
    """The names of the lines that miss a target."""
    return [line.name for line in lines if any(not verdict.met for verdict in line.verdicts)]


def sevlaunch(*arguments: str | Path) -> list[str]:
    """The command line of the installed ``sevlaunch``."""
    return [str(Path(sys.executable).with_name("sevlaunch")), *map(str, arguments)]


def cpus() -> int:
    """How many CPUs this process may use."""
    return len(os.sched_getaffinity(0))
