"""The commands of this checkout beside those of another revision, in turns, with the dependencies of this one."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from pathlib import Path

from benchmarks.measuring import (
    ROOT,
    RUNTIME,
    Candidate,
    Result,
    Setting,
    Target,
    alternate,
    run_quietly,
    summarise,
)

# What is run, as the arguments of a side, whose own files are below {root}.
COMMANDS = {
    "--help": "--help",
    "check": "check {root}/profiles/sles15-sev.yaml",
    "render": "render {root}/profiles/sles15-sev.yaml --host {root}/tests/hosts/milan-qemu-10.0.json",
    "up --paused": "up {root}/profiles/plain.yaml --set accel=tcg --paused",
}
_DOWN = "down plain --now"


class Side:
    """A checkout, with caches and folders of its own: what one wrote, another may have to ask for again."""

    def __init__(self, root: Path, folder: Path) -> None:
        self._root, self._folder = root, folder
        self._environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        self._environment["PYTHONPATH"] = str(root)
        for name in ("XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
            (folder / name).mkdir(mode=0o700, parents=True)
            self._environment[name] = str(folder / name)

    @contextmanager
    def command(self, arguments: str) -> Iterator[None]:
        """A command, run to its end; a guest that it starts ends with the context."""
        self._run(arguments)
        yield
        if arguments.startswith("up "):
            self._run(_DOWN)

    def _run(self, arguments: str) -> None:
        words = [word.format(root=self._root) for word in arguments.split()]
        # Not in a checkout, whose modules would be found first.
        run_quietly([sys.executable, "-m", "sevlaunch", *words], env=self._environment, cwd=self._folder)


def checkout(revision: str) -> tuple[str, Path]:
    """The short name of a revision of this project, and a folder with its files, which is kept for the next time."""
    name = _git("rev-parse", "--short", "--verify", "--end-of-options", f"{revision}^{{commit}}").decode().strip()
    builds = ROOT / "build/against"
    folder = builds / name
    if not folder.exists():
        builds.mkdir(parents=True, exist_ok=True)
        # Half a checkout has another name.
        with tempfile.TemporaryDirectory(dir=builds, ignore_cleanup_errors=True) as unfinished:
            with tarfile.open(fileobj=BytesIO(_git("archive", "--format=tar", name))) as archive:
                archive.extractall(unfinished, filter="data")
            Path(unfinished).rename(folder)
    return name, folder


def _git(*arguments: str) -> bytes:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, check=False)
    if done.returncode:
        sys.exit(f"git {' '.join(arguments)}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def against(revision: str, setting: Setting, commands: Mapping[str, str] = COMMANDS) -> Result:
    """Each command of both; the targets are the other's times."""
    name, root = checkout(revision)
    with tempfile.TemporaryDirectory(prefix="sevlaunch-bench-", dir=RUNTIME) as folder:
        new, old = Side(ROOT, Path(folder) / "new"), Side(root, Path(folder) / "old")
        candidates: dict[str, Candidate] = {}
        targets = {}
        for what, arguments in commands.items():
            before = f"{what}, {name}"
            candidates[before] = partial(old.command, arguments)
            candidates[what] = partial(new.command, arguments)
            targets[what] = [Target(before, ratio=1)]
        return Result(summarise(alternate(candidates, setting.rounds), targets))
