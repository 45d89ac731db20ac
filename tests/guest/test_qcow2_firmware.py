"""Firmware that comes as qcow2: QEMU opens it as such, the guest's variables are a copy, the content is hashed."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from tests import needs
from tests.conftest import VERSIONS, Command, qemu_binary_of
from tests.guest.support import JSON, PLAIN, some_qemu, with_qemu


@pytest.fixture
def pair(base: Path) -> tuple[Path, Path]:
    """Debian's OVMF as qcow2, with names that do not say so."""
    program = needs.program("qemu-img", "qemu-utils")
    made = base / "code", base / "vars"
    for source, target in zip(needs.ovmf(), made, strict=True):
        words = [program, "convert", "-q", "-f", "raw", "-O", "qcow2", str(source), str(target)]
        subprocess.run(words, check=True, timeout=60)
    return made


def named(code: Path, variables: Path) -> tuple[str, ...]:
    """The options that choose a pair."""
    return "--set", f"firmware.code={code}", "--set", f"firmware.vars={variables}"


@pytest.mark.parametrize("version", VERSIONS)
def test_qemu_takes_it_and_the_store_is_the_guests_own(
    version: str, pair: tuple[Path, Path], sevlaunch: Command
) -> None:
    code, variables = pair
    qemu = with_qemu(qemu_binary_of(version))
    for _ in range(2):
        up = sevlaunch("up", PLAIN, "--paused", *named(code, variables), *JSON, *qemu).json
        assert [one.partition(",read-only")[0] for one in up["command"] if "node-name=pflash" in one] == [
            "driver=qcow2,node-name=pflash0",
            "driver=qcow2,node-name=pflash1",
        ]
        (store,) = (sevlaunch.state / "plain").glob("*/VARS.qcow2")
        assert store.read_bytes() == variables.read_bytes()
        # What is measured is what the guest sees.
        assert up["firmware"]["sha256"] == hashlib.sha256(needs.ovmf()[0].read_bytes()).hexdigest()
        sevlaunch("down", "plain", "--now")


def test_a_template_that_leans_on_another_image_is_refused(pair: tuple[Path, Path], sevlaunch: Command) -> None:
    code, variables = pair
    leaning = variables.with_name("leaning")
    program = needs.program("qemu-img", "qemu-utils")
    command = [program, "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", "vars", str(leaning)]
    subprocess.run(command, check=True, timeout=60)
    refused = sevlaunch("up", PLAIN, "--paused", *named(code, leaning), *some_qemu(), check=4)
    assert "a qcow2 image with a backing file" in refused.stderr
    assert "qemu-img convert" in refused.stderr
    assert sevlaunch.left_behind() == []
