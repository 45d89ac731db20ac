"""Helper programs beside QEMU that fail: at their start, and later."""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from pathlib import Path

import pytest

from sevlaunch.api import Host, Profile, QemuError, StartOptions, launch, plan
from tests import needs
from tests.conftest import Command, wait_until
from tests.guest.support import PLAIN, ended, listed, some_qemu, status_of

# Says something, then listens as passt does and takes one connection, and lives until it is killed.
PASST = f"""\
#!{sys.executable}
import signal, socket, sys
print("passt: no external interface", file=sys.stderr, flush=True)
if FAILS:
    sys.exit(1)
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[sys.argv.index("--socket") + 1])
listener.listen()
connection = listener.accept()
signal.pause()
"""
WITH_PASST = ("--set", "networks=[{type: passt}]", "--set", "accel=tcg")


def fake_passt(folder: Path, *, fails: bool) -> str:
    """The PATH on which passt is a fake."""
    programs = folder / "programs"
    programs.mkdir()
    file = programs / "passt"
    file.write_text(PASST.replace("FAILS", str(fails)))
    file.chmod(0o755)
    return f"{programs}:{os.environ['PATH']}"


def passt_of(command: Command) -> int:
    """The process of the fake."""
    [found] = [pid for pid in command.processes() if b"--one-off" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return found


def test_a_helper_that_fails_is_an_error_of_the_start(sevlaunch: Command) -> None:
    sevlaunch.environment["PATH"] = fake_passt(sevlaunch.base, fails=True)
    result = sevlaunch("up", PLAIN, *WITH_PASST, *some_qemu(), check=5)
    assert "the helper program passt0 ended before it was ready" in result.stderr
    assert "passt: no external interface" in result.stderr
    assert sevlaunch.left_behind() == []


def test_a_helper_that_ends_later_is_a_state_of_the_guest(sevlaunch: Command) -> None:
    sevlaunch.environment["PATH"] = fake_passt(sevlaunch.base, fails=False)
    sevlaunch("up", PLAIN, *WITH_PASST, *some_qemu())
    status = status_of(sevlaunch, "plain")
    assert (status["state"], status["helpers"]) == (
        "running",
        [{"name": "passt0", "state": "running", "reason": None}],
    )
    pid = passt_of(sevlaunch)
    os.kill(pid, signal.SIGKILL)
    wait_until(partial(ended, pid), 30, "the end of passt")
    reason = "passt: no external interface"
    status = status_of(sevlaunch, "plain")
    assert status["helpers"] == [{"name": "passt0", "state": "ended", "reason": reason}]
    assert listed(sevlaunch) == {"plain": "degraded"}
    assert f"helper       passt0 ended: {reason}" in sevlaunch("status", "plain").stdout
    assert sevlaunch("logs", "plain", "--helpers").stdout == f"passt0: {reason}\n"
    sevlaunch("down", "plain", "--now")
    assert sevlaunch.left_behind() == []


def test_a_wait_for_a_console_that_is_not_there_is_refused(sevlaunch: Command) -> None:
    options = ("--set", "console=none", "--wait", "console:x", *some_qemu())
    assert "plain has no console" in sevlaunch("up", PLAIN, *options, check=1).stderr


def test_a_guest_without_helpers_has_no_log_of_them(sevlaunch: Command) -> None:
    sevlaunch("up", PLAIN, "--paused", *some_qemu())
    assert "plain has no helper programs" in sevlaunch("logs", "plain", "--helpers", check=1).stderr
    assert "--helpers goes with no other option" in sevlaunch("logs", "plain", "--helpers", "-f", check=2).stderr


async def test_a_helper_that_ends_during_the_start_ends_the_start(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs.program("qemu-system-x86_64", "qemu-system-x86")
    for variable, name in (("XDG_RUNTIME_DIR", "run"), ("XDG_STATE_HOME", "state")):
        monkeypatch.setenv(variable, str(base / name))
    (base / "run").mkdir(mode=0o700)
    monkeypatch.setenv("PATH", fake_passt(base, fails=False))
    profile = {"name": "small", "accel": "tcg", "memory": "64M", "networks": [{"type": "passt"}]}
    async with launch(plan(Profile.from_dict(profile), Host.probe()), paused=True) as guest:
        options = StartOptions(paused=True)
        await options.reached_by(guest)
        one = passt_of(Command(base))
        os.kill(one, signal.SIGKILL)
        wait_until(partial(ended, one), 30, "the end of passt")
        with pytest.raises(QemuError, match="passt0 ended while small was being started"):
            await options.reached_by(guest)
