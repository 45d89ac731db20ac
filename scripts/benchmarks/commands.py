"""How long a command line makes one wait."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.imports import import_times
from benchmarks.measuring import (
    ROOT,
    Candidate,
    Result,
    Setting,
    Target,
    alternate,
    missed,
    peak_memory,
    run_quietly,
    sevlaunch,
    summarise,
)

PROFILE = ROOT / "profiles/sles15-sev.yaml"
HOST = ROOT / "tests/hosts/milan-qemu-10.0.json"
PYTHON = "python -c pass"


@contextmanager
def command(words: Sequence[str | Path]) -> Iterator[None]:
    """A command, run to its end."""
    run_quietly(words)
    yield


def commands(setting: Setting) -> Result:
    """`--help`, `check` and `render` beside a Python that does nothing."""
    arguments = {
        "--help": ["--help"],
        "check": ["check", str(PROFILE)],
        "render": ["render", str(PROFILE), "--host", str(HOST)],
    }
    words = {PYTHON: [sys.executable, "-c", "pass"]}
    words |= {name: sevlaunch(*own) for name, own in arguments.items()}
    candidates: dict[str, Candidate] = {name: partial(command, line) for name, line in words.items()}
    targets = {"--help": [Target(PYTHON, more=100)], "render": [Target(PYTHON, more=150)]}
    memory = {name: peak_memory(line) for name, line in words.items()}
    lines = summarise(alternate(candidates, setting.rounds), targets, memory)
    return Result(lines, notes=tuple(import_times(arguments[name]) for name in missed(lines)))
