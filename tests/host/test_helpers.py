"""Helper programs are asked what they can."""

from __future__ import annotations

from pathlib import Path

import pytest

from sevlaunch.host.helpers import helpers_here
from sevlaunch.host.model import Host


def program(folder: Path, name: str, script: str) -> Path:
    """A shell script on PATH."""
    file = folder / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return file


def test_what_a_program_says_of_itself_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    talks = program(
        tmp_path, "talks", "echo 'Usage: --shared-dir <DIR> [--no-x=Y]' >&2; echo ' -f, --tag A--b'; exit 1"
    )
    fails = program(tmp_path, "fails", "kill -9 $$")
    found = helpers_here(["talks", "fails", "is-not-there"])
    assert found.keys() == {"talks", "fails"}
    assert (found["talks"].path, found["talks"].options) == (str(talks), ["--no-x", "--shared-dir", "--tag"])
    assert (found["fails"].path, found["fails"].options) == (str(fails), [])


def test_a_saved_host_remembers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    program(tmp_path, "virtiofsd", "echo --shared-dir")
    host = Host.probe(runtime=tmp_path, state=tmp_path, helpers=["virtiofsd"])
    (tmp_path / "host.json").write_text(host.to_json())
    assert Host.load(tmp_path / "host.json").helpers == host.helpers != {}
