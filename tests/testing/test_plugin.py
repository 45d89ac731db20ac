"""The pytest plugin, in test runs of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sevlaunch.guest.folder import guests
from sevlaunch.guest.life import qemu_pid
from tests import needs
from tests.conftest import PROFILES, Command, qemu_binary_of, wait_until
from tests.guest.support import ended

SMALL = '{"security": "none", "accel": "tcg", "memory": "64M"}'


@pytest.fixture
def suite(base: Path, sevlaunch: Command) -> Suite:
    """A test suite of somebody else."""
    return Suite(base / "suite", sevlaunch)


class Suite:
    """A folder with tests, run by pytest in a process of its own."""

    def __init__(self, folder: Path, command: Command) -> None:
        folder.mkdir()
        self.folder = folder
        self.environment = command.environment
        self.guests = Path(command.environment["XDG_RUNTIME_DIR"]) / "sevlaunch-tests"

    def start(self, test: str, *options: str) -> subprocess.Popen[str]:
        """Run ``test``, the text of a test module."""
        (self.folder / "test_it.py").write_text(test)
        return subprocess.Popen(
            [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", *options],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, test: str, *options: str, code: int = 0) -> str:
        """What pytest printed; ``code`` is the exit code that it must have."""
        process = self.start(test, *options)
        output, _ = process.communicate(timeout=300)
        assert process.returncode == code, output
        return output

    def left(self) -> list[str]:
        """Sessions whose guests' folder is still there."""
        return [folder.name for folder in self.guests.iterdir() if folder.is_dir()] if self.guests.exists() else []


def test_a_suite_boots_a_linux_and_talks_to_it(suite: Suite, demo: Path) -> None:
    output = suite.run(
        f"""
import re

def test_demo(sev_guest):
    guest = sev_guest({str(demo)!r})
    guest.console.expect("demo: ready", limit=180)
    guest.console.send("echo 6 times 7 is $((6 * 7))\\n")
    assert guest.console.expect(re.compile(rb"is (\\d+)\\s"))[1] == b"42"
    assert guest.powerdown()
"""
    )
    assert "1 passed" in output
    assert suite.left() == []


def test_a_failure_shows_console_output_command_line_and_evidence(suite: Suite) -> None:
    output = suite.run(
        f"""
def test_it(sev_guest):
    sev_guest({SMALL}, "qemu.extra_args=[-d, help-me]")
    assert False, "broken on purpose"
""",
        code=1,
    )
    assert "QEMU ended" in output
    output = suite.run(
        f"""
from sevlaunch.guest.console_log import log_path
from sevlaunch.guest.folder import GuestFolder

def test_it(sev_guest):
    guest = sev_guest({SMALL}, paused=True)
    log_path(GuestFolder(guest.folder.parent, guest.folder.name)).write_text("the guest said this")
    (guest.folder / "qemu.log").write_text("QEMU said that")
    assert False, "broken on purpose"
""",
        code=1,
    )
    for text in (
        "console of guest test-1",
        "the guest said this",
        "QEMU said that",
        "-accel tcg",
        '"measurement": null',
    ):
        assert text in output
    assert suite.left() == []


def test_an_encrypted_guest_is_rehearsed(suite: Suite) -> None:
    needs.rehearsal()
    output = suite.run(
        f"""
def test_it(sev_guest):
    guest = sev_guest({str(PROFILES / "sev.yaml")!r}, "memory=64M", paused=True)
    assert guest.evidence().rehearsal and guest.launch_measurement()
"""
    )
    assert "1 passed" in output


def test_workers_of_one_run_share_no_store_of_variables(suite: Suite) -> None:
    needs.ovmf()
    here = [suite.folder / "first", suite.folder / "second"]
    test = f"""
import os, pathlib, time
def test_it(sev_guest):
    guest = sev_guest({SMALL}, paused=True)
    (store,) = [text for text in guest.evidence().command if "node-name=pflash1" in text]
    pathlib.Path(os.environ["MINE"]).write_text(store.rpartition("=")[2])
    end = time.monotonic() + 120
    while not os.path.exists(os.environ["OTHER"]):
        assert time.monotonic() < end
        time.sleep(0.02)
"""
    workers = []
    for mine, other in (here, here[::-1]):
        suite.environment = {**suite.environment, "MINE": str(mine), "OTHER": str(other)}
        workers.append(suite.start(test))
    for worker in workers:
        output, _ = worker.communicate(timeout=300)
        assert worker.returncode == 0, output
    first, second = (Path(path.read_text()) for path in here)
    assert first != second
    assert suite.left() == []
    # A session's state ends with it.
    assert not first.exists() and not first.parents[2].exists()


def test_markers_skip_with_the_reason(suite: Suite) -> None:
    tests = "\n".join(
        f"@pytest.mark.{marker}\ndef test_{marker}(): raise SystemExit('not skipped')\n"
        for marker in ("needs_sev", "needs_sev_es", "needs_snp")
    )
    needs.no_sev("nothing to skip")
    output = suite.run(f"import pytest\n{tests}", "--strict-markers")
    assert "3 skipped" in output
    assert "needs_sev_es: " in output


def test_each_binary_that_was_found(suite: Suite, system_qemu: str, base: Path) -> None:
    other = base / "qemu-other"
    other.symlink_to(system_qemu)
    suite.environment = {**suite.environment, "SEVLAUNCH_QEMU": str(other)}
    output = suite.run(
        f"""
def test_it(sev_guest, qemu_binary):
    guest = sev_guest({SMALL}, paused=True)
    assert guest.evidence().qemu.binary == qemu_binary
"""
    )
    assert "2 passed" in output


def test_the_guests_of_a_dead_session_are_taken_down_by_the_next(suite: Suite) -> None:
    ready = suite.folder / "ready"
    process = suite.start(
        f"""
import pathlib, time
def test_it(sev_guest):
    sev_guest({SMALL}, paused=True)
    pathlib.Path({str(ready)!r}).touch()
    time.sleep(600)
"""
    )
    wait_until(ready.exists, 60, "the guest")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (session,) = suite.left()
    (orphan,) = guests(suite.guests / session)
    pid = qemu_pid(orphan)
    assert pid is not None
    output = suite.run("def test_it(sev_guest): pass")
    assert "1 passed" in output
    assert suite.left() == []
    assert ended(pid)


def test_sessions_in_a_folder_of_somebody_elses_are_none(suite: Suite) -> None:
    needs.root("giving a folder away")
    suite.guests.mkdir(mode=0o777)
    os.chown(suite.guests, 12345, 12345)
    output = suite.run("def test_it(sev_guest): pass", code=1)
    assert f"{suite.guests} is no folder of this user" in output
    assert list(suite.guests.iterdir()) == []


def test_a_suite_without_guests_imports_next_to_nothing(suite: Suite) -> None:
    suite.run(
        """
import sys
def test_it():
    assert "sevlaunch.testing.plugin" in sys.modules
    assert not {"sevlaunch.api", "msgspec", "qemu.qmp"} & set(sys.modules)
"""
    )


def test_snp_is_rehearsed_where_the_firmware_is_there(suite: Suite) -> None:
    needs.rehearsal()
    binary = qemu_binary_of("10.0")
    suite.run(
        f"""
def test_it(sev_guest):
    guest = sev_guest({str(PROFILES / "sev-snp.yaml")!r}, "memory=64M", "qemu.binary={binary}",
        "firmware.image={needs.amdsev_image()}")
    assert guest.evidence().report
"""
    )
