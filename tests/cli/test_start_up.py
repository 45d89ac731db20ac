"""What is loaded before QEMU starts makes it start later. What a command loads at all: tests/test_api_surface.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.conftest import Command
from tests.guest.support import PLAIN

TCG = ("--set", "accel=tcg")
# Prints the modules that are there when the command starts its first program.
REPORT = """
import subprocess, sys
told = []
def tell():
    if not told:
        told.append(True)
        print(*sorted(sys.modules), file=open(sys.argv[0], "w"))
begin = subprocess.Popen.__init__
def popen(self, *arguments, **options):
    tell()
    begin(self, *arguments, **options)
subprocess.Popen.__init__ = popen
from sevlaunch.cli.main import main
main()
"""


def modules(command: Command, base: Path, *arguments: str | Path) -> set[str]:
    """The modules that ``sevlaunch ARGUMENTS`` has loaded when it starts a program."""
    report = base / "modules"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.argv[0] = {str(report)!r}\n{REPORT}", *map(str, arguments)],
        env=command.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return set(report.read_text().split())


def test_qemu_starts_before_what_talks_to_it_is_loaded(sevlaunch: Command, base: Path) -> None:
    """asyncio and QMP take as long to load as QEMU to start."""
    # What a QEMU knows is asked of it once.
    sevlaunch("render", PLAIN, *TCG)
    found = modules(sevlaunch, base, "up", PLAIN, "--paused", *TCG)
    assert "sevlaunch.guest.starting" in found
    waited_for = {"asyncio", "qemu.qmp", "tempfile", "sevlaunch.host.qemu_answers", "sevlaunch.guest.taps"}
    assert not found & (waited_for | {"sevlaunch.flows.images"})
    sevlaunch("down", "plain", "--now")
