"""Every command in README.md runs, in order, as it stands there."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import needs
from tests.conftest import ROOT, Command
from tests.image.server import mirror, serving

pytestmark = pytest.mark.long

# scripts/test runs this test; scripts/quickstart is run by a test of its own.
ELSEWHERE = ("scripts/test", "scripts/quickstart")

ESCAPE = b"\x1d"


def commands() -> list[str]:
    """The lines after ``$`` in the console blocks, comments taken off."""
    blocks = re.findall(r"```console\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("$ ")]
    return [line.removeprefix("$ ").split("  #")[0].strip() for line in lines]


@pytest.fixture
def clone(base: Path) -> Path:
    """A folder with what the commands name, where they may write."""
    for name in ("profiles", "tests", "build", "scripts"):
        (base / name).symlink_to(ROOT / name)
    return base


def run_on_a_terminal(command: str, environment: dict[str, str], folder: Path) -> tuple[int, bytes]:
    """Exit code and output of an interactive command that is left by the escape key once it has connected."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        ["bash", "-c", command], env=environment, cwd=folder, stdin=slave, stdout=slave, stderr=slave
    )
    os.close(slave)
    output = b""
    end = time.monotonic() + 60
    while b"connected" not in output:
        assert time.monotonic() < end, output
        if select.select([master], [], [], 1)[0]:
            output += os.read(master, 4096)
    os.write(master, ESCAPE)
    code = process.wait(60)
    os.close(master)
    return code, output


@pytest.fixture
def images(base: Path) -> Iterator[dict[str, str]]:
    """Variables with which images come from this machine, and into a cache of the test's own."""
    with serving() as server:
        url = mirror(server, "debian-13", b"an image")
        yield {"SEVLAUNCH_IMAGE_MIRROR": url, "XDG_CACHE_HOME": str(base / "cache")}


def test_every_command_of_the_readme_runs(
    sevlaunch: Command, clone: Path, demo: Path, system_qemu: str, images: dict[str, str]
) -> None:
    binaries = Path(sys.executable).parent
    environment = {**sevlaunch.environment, **images, "PATH": f"{binaries}:{os.environ['PATH']}"}
    found = [command for command in commands() if command not in ELSEWHERE]
    if not (needs.can_open_kvm() and needs.can_lock()):
        found = [command for command in found if not re.search(r"--rehearse --paused|\bsev\b|pdh", command)]
    if not needs.demo_has_ssh():
        found = [command for command in found if " inside" not in command]
    assert len(found) > 25
    for command in found:
        if command.startswith("sevlaunch console"):
            code, output = run_on_a_terminal(command, environment, clone)
            assert code == 0, output
            continue
        done = subprocess.run(
            ["bash", "-c", command],
            env=environment,
            cwd=clone,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert sevlaunch.left_behind() == []


def test_the_quickstart_runs_and_leaves_nothing(sevlaunch: Command, demo: Path, system_qemu: str) -> None:
    done = subprocess.run(
        [str(ROOT / "scripts/quickstart")],
        env=sevlaunch.environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "demo: ready" in done.stdout
    assert "quickstart: powered down" in done.stdout
    left_out = "the SEV launch is left out" in done.stderr
    assert ("REHEARSAL: memory is NOT encrypted" in done.stdout) == (not left_out and not Path("/dev/sev").exists())
    assert not (left_out and needs.can_open_kvm() and needs.can_lock())
    assert sevlaunch.left_behind() == []
