"""Every script says what it is for, without doing anything, and none lies about unused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import needs
from tests.conftest import ROOT

SCRIPTS = ROOT / "scripts"
FILES = sorted(path for path in SCRIPTS.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
SHEBANGS = (b"#!/bin/sh", b"#!/usr/bin/env bash")
SHELL = [path for path in FILES if path.suffix == ".sh" or path.read_bytes().startswith(SHEBANGS)]
# Pacemaker calls it, with the words of its interface: tests/guest/test_cluster.py.
AGENT = SCRIPTS / "ocf/sevlaunch"


def is_command(path: Path) -> bool:
    """Whether a file of scripts/ is there to be called."""
    return path != AGENT and (os.access(path, os.X_OK) or "\nif __name__ ==" in path.read_text())


COMMANDS = [path for path in FILES if is_command(path)]


def names(paths: list[Path]) -> list[str]:
    """Their names below scripts/."""
    return [str(path.relative_to(SCRIPTS)) for path in paths]


@pytest.mark.parametrize("script", COMMANDS, ids=names(COMMANDS))
def test_help_says_what_it_does_and_does_nothing(script: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(script)] if script.suffix == ".py" else [str(script)]
    environment = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    # On a system whose commands can't install or bring anything, --help works all the same.
    for name in ("XDG_CACHE_HOME", "SEVLAUNCH_TOOLS"):
        environment.pop(name, None)
    done = subprocess.run(
        [*command, "--help"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    called = script.stem.replace("_", "-")
    assert called in done.stdout.replace("_", "-")
    assert len(done.stdout.splitlines()) > 2
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_command_is_used_by_one_or_by_a_test() -> None:
    others = [path for path in FILES if path not in COMMANDS and path.name != "__init__.py"]
    texts = {path: path.read_text() for path in (*FILES, *(ROOT / "tests").rglob("*.py")) if path != Path(__file__)}
    for path in others:
        used = {path.name, f"import {path.stem}", f"{path.stem} import", f"ocf/{path.name}"}
        assert any(word in text for user, text in texts.items() if user != path for word in used), path


@pytest.mark.parametrize("script", SHELL, ids=names(SHELL))
def test_shell_scripts_are_clean(script: Path) -> None:
    program = needs.program("shellcheck", "shellcheck")
    # What is sourced says no shell of its own.
    options = ["--severity=warning", "--external-sources", *(["--shell=bash"] if script.name == "lib.sh" else [])]
    done = subprocess.run(
        [program, *options, str(script)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
