"""How long a command line makes one wait."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.measuring import Candidate, Result, Setting, Target, alternate, run_quietly, sevlaunch, summarise

PROFILE = Path(__file__).resolve().parents[2] / "profiles/sles15-sev.yaml"
HOST = Path(__file__).resolve().parents[2] / "tests/hosts/milan-qemu-10.0.json"
PYTHON = "python -c pass"


@contextmanager
def command(words: Sequence[str | Path]) -> Iterator[None]:
    """A command, run to its end."""
    run_quietly(words)
    yield


def commands(setting: Setting) -> Result:
    """`--help`, `check` and `render` beside a Python that does nothing."""
    candidates: dict[str, Candidate] = {
        PYTHON: partial(command, [sys.executable, "-c", "pass"]),
        "--help": partial(command, sevlaunch("--help")),
        "check": partial(command, sevlaunch("check", PROFILE)),
        "render": partial(command, sevlaunch("render", PROFILE, "--host", HOST)),
    }
    targets = {"--help": [Target(PYTHON, more=100)], "render": [Target(PYTHON, more=150)]}
    return Result(summarise(alternate(candidates, setting.rounds), targets))
