"""Every example in docs/ and examples/ runs as it stands."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests import needs
from tests.conftest import ROOT, Command
from tests.guest.support import some_qemu
from tests.rehearsal.owner import share_platform

_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(name: str) -> list[str]:
    """The Python examples of a document."""
    return _BLOCK.findall((ROOT / "docs" / name).read_text())


def run(command: Command, *arguments: str | Path, cwd: Path = ROOT, code: int = 0) -> str:
    """What Python prints."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**command.environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("number", range(len(blocks("embedding.md"))))
def test_an_example_of_embedding(number: int, sevlaunch: Command) -> None:
    assert run(sevlaunch, "-c", blocks("embedding.md")[number])
    # A guest that was detached leaves its logs until it is taken down.
    sevlaunch("down", "--all")
    assert sevlaunch.left_behind() == []


@pytest.mark.parametrize("number", range(len(blocks("testing.md"))))
def test_an_example_of_testing(number: int, sevlaunch: Command, demo: Path) -> None:
    test = blocks("testing.md")[number]
    if '"sev"' in test:
        needs.rehearsal()
    file = sevlaunch.base / "test_example.py"
    file.write_text(test)
    output = run(sevlaunch, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "--rootdir", sevlaunch.base, file)
    assert re.search(r"\d (passed|skipped)", output)


def test_the_guide_into_a_guest(sevlaunch: Command) -> None:
    needs.demo_ssh()
    (sevlaunch.base / "profiles").symlink_to(ROOT / "profiles")
    (sevlaunch.base / "build").symlink_to(ROOT / "build")
    [block] = re.findall(r"```console\n(.*?)```", (ROOT / "docs/ssh.md").read_text(), re.DOTALL)
    commands = [line.removeprefix("$ sevlaunch ") for line in block.splitlines()]
    printed = [sevlaunch(*shlex.split(command), cwd=sevlaunch.base, limit=240).stdout for command in commands]
    assert "sevlaunch ssh demo-ssh" in printed[0]
    assert re.match(r"\d+\.\d+\.", printed[1])
    assert printed[2] == "1 /tmp/user\n"
    assert (sevlaunch.base / "version").read_text().startswith("Linux version")
    assert sevlaunch.left_behind() == []


def test_the_guide_of_owner_and_host(sevlaunch: Command) -> None:
    needs.rehearsal()
    text = (ROOT / "docs/attestation.md").read_text()
    found = [
        line.removeprefix("$ ")
        for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL)
        for line in block.splitlines()
    ]
    assert len(found) > 10
    for name in ("profiles", "tests"):
        (sevlaunch.base / name).symlink_to(ROOT / name)
    share_platform(sevlaunch)
    # OVMF.amdsev.fd has the area for secrets that the guide speaks of.
    image = f"firmware.image={needs.amdsev_image()}"
    for command in found:
        if command.startswith("sevlaunch up"):
            command = f"{command} --set {image}"
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=sevlaunch.base,
            env={**sevlaunch.environment, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert sevlaunch.left_behind() == []


def test_the_guide_of_a_first_boot(sevlaunch: Command) -> None:
    text = (ROOT / "docs/first-boot.md").read_text()
    profiles = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    commands = re.findall(r"^\$ sevlaunch (.*)$", text, re.MULTILINE)
    assert (len(profiles), len(commands)) == (4, 2)
    for name in ("web.conf", "token.txt", "root.hash", "noble-server-cloudimg-amd64.img"):
        (sevlaunch.base / name).write_text("content\n")
    (sevlaunch.base / "team.pub").write_text(re.findall(r"ssh-ed25519 \S+", text)[0])
    (sevlaunch.base / "config.ign").write_text('{"ignition": {"version": "3.4.0"}}')
    for profile in profiles:
        (sevlaunch.base / "web.yaml").write_text(profile)
        for command in commands:
            sevlaunch(*command.split(), *("--set", "accel=tcg"), *some_qemu(), cwd=sevlaunch.base)
        if "first_boot" in profile:
            sevlaunch("up", sevlaunch.base / "web.yaml", "--paused", "--set", "accel=tcg", *some_qemu())
            sevlaunch("down", "web", "--now")
    assert sevlaunch.left_behind() == []


def test_the_example_suite(sevlaunch: Command, demo: Path) -> None:
    assert "1 passed" in run(sevlaunch, "-m", "pytest", "-q", "-p", "no:cacheprovider", "examples/test_demo.py")


def test_the_example_tool(sevlaunch: Command) -> None:
    tool = ROOT / "examples/tiny_hypervisor.py"
    assert len(tool.read_text().splitlines()) < 80
    output = run(sevlaunch, tool, "profiles/plain.yaml", "--guests", "2", "--seconds", "2")
    assert "pool-1: pid" in output
    assert "pool-2: ended" in output
    assert sevlaunch.left_behind() == []
