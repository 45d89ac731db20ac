"""A guest that boots is asked for its report over SSH, from its host and as an owner does it from his own machine."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import needs
from tests.conftest import ROOT, Command
from tests.guest import stand_in
from tests.guest.test_attest import DOCUMENT, HOST_DATA, IMAGE, MILAN
from tests.guest.test_ssh import up
from tests.rehearsal import emulated_guest as emulated

Respond = Callable[[bytes], bytes]
# Where a guest finds its host: QEMU's user network.
_SEND = "nc 10.0.2.2 {port}"


@pytest.fixture(scope="module")
def right() -> Respond:
    """The answers of the guest of `guest.yaml`."""
    guest = emulated.launched(IMAGE, vcpus=2, signature=MILAN, host_data=HOST_DATA)
    return lambda data: emulated.answer(guest, data)


@pytest.fixture(scope="module")
def respond(right: Respond) -> dict[str, Respond]:
    """What the guest answers now; the tests change it."""
    return {"now": right}


@pytest.fixture(scope="module")
def guest(respond: dict[str, Respond]) -> Iterator[Command]:
    """The demo guest, with a stand-in for configfs-tsm, and what its owner has."""
    needs.demo_ssh()
    base = Path(tempfile.mkdtemp(prefix="sl-", dir="/tmp"))
    command = Command(base)
    command.environment["HOME"] = str(base)
    (base / "firmware.fd").write_bytes(IMAGE)
    (base / "ark.pem").write_bytes(emulated.root_of(emulated.platform()))
    (base / "initdata.toml").write_bytes(DOCUMENT)
    (base / "passphrase").write_text("correct horse battery staple\n")
    (base / "guest.yaml").write_text("cpu: {model: EPYC-Milan-v2, count: 2}\nsecurity: {type: sev-snp}\n")
    try:
        with emulated.answering(lambda data: respond["now"](data)) as port:
            up(command)
            made = stand_in.script(_SEND.format(port=port), folder="/usr/bin")
            command("ssh", "demo", "--", "sh", "-s", input=made + stand_in.busybox_shell("/usr/bin"))
            yield command
    finally:
        command("down", "--all", "--now", check=None)
        left = command.left_behind()
        shutil.rmtree(base)
    assert left == []


def asking(command: Command, *more: str | Path) -> list[str | Path]:
    """The command, for an owner who trusts the emulated processor's root."""
    base = command.base
    owner: list[str | Path] = [
        "--profile",
        base / "guest.yaml",
        "--firmware",
        base / "firmware.fd",
        "--root",
        base / "ark.pem",
    ]
    return ["attest", "demo", *owner, *more]


def test_the_guest_is_asked_over_ssh(guest: Command, respond: dict[str, Respond], right: Respond) -> None:
    known = ("--initdata", guest.base / "initdata.toml", "--format", "json")
    document = guest(*asking(guest, *known)).json
    assert (document["ok"], document["by"]) == (True, "ssh")
    assert document["nonce"] == document["report"]["report_data"]
    stranger = emulated.platform("another")
    other = emulated.launched(IMAGE, vcpus=4, signature=MILAN, host_data=HOST_DATA)
    bare = emulated.launched(IMAGE, vcpus=2, signature=MILAN)
    theirs = emulated.launched(IMAGE, vcpus=2, signature=MILAN, host_data=HOST_DATA, on=stranger)
    wrong: dict[str, Respond] = {
        "report data": lambda data: right(bytes(64)),
        "host data": lambda data: emulated.answer(bare, data),
        "measurement": lambda data: emulated.answer(other, data),
        "root": lambda data: emulated.answer(theirs, data, on=stranger),
    }
    try:
        for name, answer in wrong.items():
            respond["now"] = answer
            told = guest(*asking(guest, *known, "--then", "touch", "--", guest.base / "ran"), check=1).json
            assert [one["name"] for one in told["checks"] if one["ok"] is False] == [name]
            assert (told["search"] is not None) == (name == "measurement")
    finally:
        respond["now"] = right
    assert not (guest.base / "ran").exists()
    assert "vcpus were 2 (profile says 4)" in guest(*asking(guest, "--set", "cpu.count=4"), check=1).stdout


def test_the_owners_guide_to_the_report_and_the_secret(guest: Command) -> None:
    text = (ROOT / "docs/attestation.md").read_text()
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 2
    into = shlex.join([sys.executable, "-m", "sevlaunch", "ssh", "demo", "--"])
    environment = {**guest.environment, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for block in blocks:
        for line in block.replace("ssh root@guest", into).splitlines():
            done = subprocess.run(
                ["bash", "-c", line], cwd=guest.base, env=environment, capture_output=True, text=True, timeout=120
            )
            assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    assert guest("ssh", "demo", "cat /run/key").stdout == "correct horse battery staple\n"
