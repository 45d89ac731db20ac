"""No space, no right to write, and folders that go away: clear errors, and nothing half-done."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests import needs
from tests.conftest import Command, wait_until
from tests.guest.support import (
    JSON,
    PLAIN,
    fill,
    kill_all,
    listed,
    mounted,
    no_traceback,
    qemu_processes,
    some_qemu,
    status_of,
)

# Two for the folders above, and one for each file of a guest, with a few to spare.
MOST_INODES = 15


@pytest.fixture(autouse=True)
def may_mount() -> None:
    """The right to mount."""
    needs.root("mounting a small file system")


def test_a_full_runtime_folder_is_said_and_nothing_is_left(sevlaunch: Command) -> None:
    with mounted(sevlaunch.base / "run", "size=64k"):
        filler = fill(sevlaunch.base / "run")
        result = sevlaunch("up", PLAIN, *some_qemu(), check=4)
        no_traceback(result)
        assert "No space left on device" in result.stderr
        assert "hint: free some space there, or set XDG_RUNTIME_DIR" in result.stderr
        assert sevlaunch.left_behind() == []
        filler.unlink()
        sevlaunch("up", PLAIN, "--paused", *some_qemu())
        sevlaunch("down", "plain")


@pytest.mark.parametrize("inodes", range(1, MOST_INODES + 1))
def test_a_runtime_folder_that_takes_no_more_files_is_said_and_nothing_is_left(inodes: int, sevlaunch: Command) -> None:
    with mounted(sevlaunch.base / "run", f"size=1m,nr_inodes={inodes}"):
        result = sevlaunch("up", PLAIN, "--paused", *some_qemu(), check=None)
        no_traceback(result)
        if result.code == 0:
            sevlaunch("down", "plain")
        else:
            # QEMU finds the place for its sockets and its log taken, too.
            assert result.code in (4, 5), result
            assert "No space left on device" in result.stderr
        assert sevlaunch.left_behind() == []
        # Otherwise the numbers are wrong, and the test shows nothing.
        assert result.code == (0 if inodes == MOST_INODES else 4) or 8 <= inodes < MOST_INODES


@pytest.mark.parametrize("pages", range(1, 14, 2))
def test_a_runtime_folder_that_fills_in_the_middle_of_a_start_is_said_and_nothing_is_left(
    pages: int, sevlaunch: Command
) -> None:
    with mounted(sevlaunch.base / "run", f"size={pages * 4}k"):
        result = sevlaunch("up", PLAIN, "--paused", *some_qemu(), check=None)
        no_traceback(result)
        if result.code == 0:
            sevlaunch("down", "plain")
        else:
            assert result.code == 4, result
            assert "No space left on device" in result.stderr
        assert sevlaunch.left_behind() == []
        # The plan alone needs three pages.
        assert result.code == 4 or pages > 3


def test_a_folder_that_fills_while_the_guest_runs_can_be_looked_at_and_taken_down(sevlaunch: Command) -> None:
    with mounted(sevlaunch.base / "run", "size=256k"):
        sevlaunch("up", PLAIN, *some_qemu())
        fill(sevlaunch.base / "run").rename(sevlaunch.base / "run/other")
        assert status_of(sevlaunch, "plain")["state"] == "running"
        assert listed(sevlaunch) == {"plain": "running"}
        assert sevlaunch("logs", "plain").code == 0
        assert sevlaunch("down", "plain", "--now").stdout == "plain: quit\n"
        assert sevlaunch.left_behind() == []


def test_a_full_state_folder_is_said_and_nothing_is_left(sevlaunch: Command) -> None:
    (sevlaunch.base / "state").mkdir()
    with mounted(sevlaunch.base / "state", "size=64k"):
        result = sevlaunch("up", PLAIN, *some_qemu(), check=4)
        no_traceback(result)
        assert "can't copy the NVRAM" in result.stderr and "No space left on device" in result.stderr
        assert sevlaunch.left_behind() == []
        # Half a variable store would be used by the next start. The console's log is what tells of the last one.
        names = [path.name for path in sevlaunch.state.rglob("*") if path.is_file()]
        assert [name for name in names if not name.startswith("console.")] == []


def test_a_state_folder_that_cant_be_written_is_said_and_nothing_is_left(sevlaunch: Command) -> None:
    (sevlaunch.base / "state").mkdir()
    with mounted(sevlaunch.base / "state", "size=1m,ro"):
        result = sevlaunch("up", PLAIN, *some_qemu(), check=4)
    no_traceback(result)
    assert "can't make the console's log" in result.stderr and "Read-only file system" in result.stderr
    assert "XDG_STATE_HOME" in result.stderr
    assert sevlaunch.left_behind() == []


def test_a_runtime_folder_that_cant_be_written_is_said(sevlaunch: Command) -> None:
    with mounted(sevlaunch.base / "run", "size=1m,ro"):
        result = sevlaunch("up", PLAIN, *some_qemu(), check=4)
        no_traceback(result)
        assert "Read-only file system" in result.stderr
        assert sevlaunch("ps", *JSON).json == []


def test_a_guest_whose_runtime_folder_was_removed_is_not_known_any_more(sevlaunch: Command) -> None:
    sevlaunch("up", PLAIN, *some_qemu())
    orphan = qemu_processes(sevlaunch)
    shutil.rmtree(sevlaunch.runtime)
    assert sevlaunch("ps", *JSON).json == []
    for command in ("status", "down", "resume"):
        result = sevlaunch(command, "plain", check=10)
        no_traceback(result)
        assert "no guest 'plain' is known" in result.stderr
    # What it printed outlives it, wherever it is.
    no_traceback(sevlaunch("logs", "plain"))
    # sevlaunch can't know of it: whoever removed the folder has to end it. The name is free.
    kill_all(orphan)
    sevlaunch("up", PLAIN, "--paused", *some_qemu())
    assert listed(sevlaunch) == {"plain": "paused"}


def test_a_foreground_guest_whose_runtime_folder_was_removed_still_ends_with_the_command(sevlaunch: Command) -> None:
    process = sevlaunch.start("up", PLAIN, "--foreground", "--down-timeout", "0", *some_qemu())
    wait_until(lambda: listed(sevlaunch).get("plain") == "running", 30, "the guest")
    shutil.rmtree(sevlaunch.runtime)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    assert sevlaunch.left_behind() == []
    assert not Path(sevlaunch.runtime).exists()
