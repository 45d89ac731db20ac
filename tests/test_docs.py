"""Every example in docs/ and examples/ runs as it stands."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from sevlaunch.guest_type import EPYC_MODELS, GuestType
from sevlaunch.host.facts import Distribution
from sevlaunch.host.packages import install_firmware
from sevlaunch.image.catalogue import CATALOGUE_VARIABLE
from sevlaunch.owner.cpu import signature_of
from sevlaunch.profile.loader import load
from sevlaunch.remedies import INSTALL_QEMU, INSTALL_QEMU_IMG
from tests import needs
from tests.conftest import HOSTS, ROOT, Command, qemu_binary_of
from tests.guest import stand_in
from tests.guest.support import some_qemu
from tests.image.server import serving
from tests.rehearsal import emulated_guest as emulated
from tests.rehearsal.owner import share_platform

_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
# The demo guest's user is root already, and its busybox would take its own sh.
_SUDO = '#!/bin/sh\nshift\nexec /bin/sh "$@"\n'


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
        if "up profiles/sev-snp.yaml" in command:
            command = f"{command} --set qemu.binary={qemu_binary_of('11.1')}"
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


def test_the_guide_to_an_snp_guest(sevlaunch: Command) -> None:
    needs.rehearsal()
    needs.demo_ssh()
    needs.program("qemu-img", "qemu-utils")
    firmware = needs.amdsev_image()
    text = (ROOT / "docs/snp-guest.md").read_text()
    commands = re.findall(r"^\$ (.*)$", text, re.MULTILINE)
    # Of the emulated processor, in place of AMD's; the guest that is logged in to is one that boots anywhere.
    instead = {
        "sevlaunch doctor": f"--host {HOSTS / 'milan-qemu-11.1.json'}",
        "sevlaunch render": f"--host {HOSTS / 'milan-qemu-11.1.json'}",
        "sevlaunch up": f"--rehearse --paused --set memory=256M --set firmware.image={firmware} --set "
        f"qemu.binary={qemu_binary_of('11.1')}",
        "sevlaunch owner report": "--root ark.pem",
    }
    for name in ("profiles", "build"):
        (sevlaunch.base / name).symlink_to(ROOT / name)
    (sevlaunch.base / "OVMF.amdsev.fd").symlink_to(firmware)
    share_platform(sevlaunch)
    environment = {**sevlaunch.environment, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def typed(command: str) -> str:
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],
            cwd=sevlaunch.base,
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    right = emulated.launched(
        firmware.read_bytes(),
        vcpus=load(ROOT / "profiles/ubuntu-snp.yaml").profile.cpu.count,
        signature=signature_of(EPYC_MODELS[0]),
    )
    (sevlaunch.base / "ark.pem").write_bytes(emulated.root_of(emulated.platform()))
    with serving() as server, emulated.answering(lambda data: emulated.answer(right, data)) as port:
        in_guest = stand_in.script(f"nc 10.0.2.2 {port}", folder="/usr/bin") + stand_in.busybox_shell("/usr/bin")
        sudo = f"printf %s {shlex.quote(_SUDO)} > /usr/bin/sudo; chmod 755 /usr/bin/sudo\n"
        (sevlaunch.base / "stand-in").write_text(in_guest + sudo)
        server.put("ubuntu.img", bytes(1 << 20))
        server.put("SUMS", f"{hashlib.sha256(bytes(1 << 20)).hexdigest()}  ubuntu.img\n".encode())
        own = sevlaunch.base / "own.toml"
        entry = {"title": "Ubuntu", "image": f"{server.url}/ubuntu.img", "checksums": "SUMS", "user": "ubuntu"}
        own.write_text("\n".join(['["ubuntu-24.04"]', *(f'{key} = "{value}"' for key, value in entry.items())]))
        environment |= {CATALOGUE_VARIABLE: str(own), "XDG_CACHE_HOME": str(sevlaunch.base / "cache")}
        printed = {}
        for command in commands:
            if command in printed:
                continue
            more = next((options for start, options in instead.items() if command.startswith(start)), "")
            printed[command] = typed(f"{command.replace(' --wait ssh', '')} {more}")
            if command.startswith("sevlaunch status"):
                # What is rehearsed runs no system: it is asked now, and the guest that is logged in to boots anywhere.
                typed("sevlaunch resume ubuntu-snp")
                printed["sevlaunch attest ubuntu-snp"] = typed("sevlaunch attest ubuntu-snp --rehearsal")
                typed("sevlaunch down ubuntu-snp --now")
                typed("sevlaunch up profiles/demo-ssh.yaml --name ubuntu-snp --wait ssh")
                typed("sevlaunch ssh ubuntu-snp -- sh -s < stand-in")
    assert printed["sevlaunch attest ubuntu-snp"].endswith("yes: every check holds\n")
    assert printed[commands[-3]].endswith("yes: every check holds\n")
    assert printed["sevlaunch doctor --type sev-snp"].endswith("fit for sev-snp\n")
    assert "sev-snp-guest" in printed["sevlaunch render profiles/ubuntu-snp.yaml --format explain"]
    assert sevlaunch.left_behind() == []


@pytest.mark.parametrize(
    ("host", "distribution"),
    [
        ("Ubuntu 26.04", Distribution(id="ubuntu", version="26.04")),
        ("Fedora 44", Distribution(id="fedora", version="44")),
        ("SLES 16, openSUSE Leap 16.0", Distribution(id="sles", version="16.0")),
        ("Debian 13", Distribution(id="debian", version="13")),
    ],
)
def test_the_packages_of_an_snp_host_are_those_that_hints_name(host: str, distribution: Distribution) -> None:
    [row] = re.findall(rf"^\| {host} \| `(.*?)` \|$", (ROOT / "docs/snp-guest.md").read_text(), re.MULTILINE)
    manager, _, *packages = row.split()
    hints = (INSTALL_QEMU, INSTALL_QEMU_IMG, install_firmware(distribution, GuestType.SEV_SNP))
    assert packages[:3] == [re.findall(rf"{manager} install ([\w-]+)", hint)[0] for hint in hints]


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
