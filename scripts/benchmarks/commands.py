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
    candidates: dict[str, Candidate] = {PYTHON: partial(command, [sys.executable, "-c", "pass"])}
    candidates |= {name: partial(command, sevlaunch(*words)) for name, words in arguments.items()}
    targets = {"--help": [Target(PYTHON, more=100)], "render": [Target(PYTHON, more=150)]}
    lines = summarise(alternate(candidates, setting.rounds), targets)
    return Result(lines, notes=tuple(import_times(arguments[name]) for name in missed(lines)))
