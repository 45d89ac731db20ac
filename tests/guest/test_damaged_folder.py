"""A guest's folder in which something is damaged, missing or odd: no other guest and no stranger's process notices."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sevlaunch.errors import UnsafeFile
from sevlaunch.guest.process import process_start_time
from sevlaunch.guest.safe_files import OpenFolder
from tests.conftest import Command, wait_until
from tests.guest.support import (
    JSON,
    PLAIN,
    ended,
    listed,
    no_traceback,
    nothing_left,
    qemu_processes,
    some_qemu,
    status_of,
)

DAMAGE = [
    b"",
    b"\0" * 100,
    b"[]",
    b"null",
    b'"text"',
    b"{}",
    b'{"pid": "x"}',
    b'{"name": 1, "sev": 7, "qemu": [], "certificates": 3}',
    b"\xff\xfe{",
    b"[" * 100_000,
    b'{"pid": 1e999, "start_time": -1}',
    b'{"sev": {"type": "sev", "enabled": true, "state": [], "policy": "\x1b[31m"}}',
]


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process of this user's that has nothing to do with any guest."""
    process = subprocess.Popen(["/bin/sleep", "600"])
    yield process
    process.kill()
    process.wait()


def change(file: Path, **values: Any) -> None:
    """Put other values into a document."""
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def kill_qemu(command: Command, pid: int) -> None:
    """End a guest's QEMU, so that nobody tells anybody."""
    os.kill(pid, signal.SIGKILL)
    wait_until(partial(ended, pid), 30, "the end of QEMU")


@pytest.mark.parametrize("living", [True, False])
def test_a_record_that_names_a_stranger_is_not_believed(
    living: bool, sevlaunch: Command, stranger: subprocess.Popen[bytes]
) -> None:
    pid = sevlaunch("up", PLAIN, "--paused", *JSON, *some_qemu()).json["pid"]
    if not living:
        kill_qemu(sevlaunch, pid)
    record = sevlaunch.runtime / "plain/guest.json"
    start = process_start_time(stranger.pid)
    change(record, pid=stranger.pid, start_time=start, companions=[(stranger.pid, start)])
    shown = status_of(sevlaunch, "plain")
    assert (shown["state"], shown["pid"]) == (("paused", pid) if living else ("exited", None))
    assert sevlaunch("down", "plain", "--now").stdout == ("plain: quit\n" if living else "plain: had ended already\n")
    assert stranger.poll() is None
    assert ended(pid)
    nothing_left(sevlaunch)


@pytest.mark.parametrize("launched", [True, False])
def test_a_start_does_not_touch_the_stranger_that_a_record_names(
    launched: bool, sevlaunch: Command, stranger: subprocess.Popen[bytes]
) -> None:
    kill_qemu(sevlaunch, sevlaunch("up", PLAIN, "--paused", *JSON, *some_qemu()).json["pid"])
    record = sevlaunch.runtime / "plain/guest.json"
    start = process_start_time(stranger.pid)
    change(record, pid=stranger.pid, start_time=start, companions=[(stranger.pid, start)], launched=launched)
    sevlaunch("up", PLAIN, "--paused", *some_qemu())
    assert stranger.poll() is None
    sevlaunch("down", "plain")


def remove(file: Path) -> None:
    """Take a file away."""
    file.unlink()


def empty(file: Path) -> None:
    """Take away what is in it."""
    file.write_bytes(b"")


LOSSES: list[dict[str, Callable[[Path], None]]] = [
    {"lock": remove},
    {"launcher": remove},
    {"guest.json": empty},
    {"guest.json": empty, "evidence.json": empty},
    {"guest.json": remove},
    {"lock": remove, "guest.json": remove},
    {"lock": remove, "launcher": remove, "guest.json": empty, "evidence.json": remove},
]


def lost(damage: dict[str, Callable[[Path], None]]) -> str:
    """A name for a case."""
    return "-".join(f"{how.__name__}_{name}" for name, how in damage.items())


@pytest.mark.parametrize("damage", LOSSES, ids=lost)
def test_whatever_file_is_lost_a_living_qemu_is_not_forgotten(
    damage: dict[str, Callable[[Path], None]], sevlaunch: Command
) -> None:
    pid = sevlaunch("up", PLAIN, "--paused", *JSON, *some_qemu()).json["pid"]
    sevlaunch("up", PLAIN, "--paused", "--name", "other", *some_qemu())
    for name, how in damage.items():
        how(sevlaunch.runtime / "plain" / name)
    assert listed(sevlaunch) == {"other": "paused", "plain": "paused"}
    assert status_of(sevlaunch, "plain")["pid"] == pid
    assert sevlaunch("qmp", "plain", "query-status").json["status"] == "prelaunch"
    refused = sevlaunch("up", PLAIN, *some_qemu(), check=1)
    assert f"a guest 'plain' runs already (pid {pid})" in refused.stderr
    assert pid in qemu_processes(sevlaunch)
    assert sevlaunch("down", "plain", "--now").stdout == "plain: quit\n"
    assert ended(pid)
    sevlaunch("down", "other")
    nothing_left(sevlaunch)


@pytest.mark.parametrize("content", DAMAGE, ids=lambda content: repr(content[:20]))
@pytest.mark.parametrize("alive", [True, False])
def test_damaged_documents_break_no_command(alive: bool, content: bytes, sevlaunch: Command) -> None:
    pid = sevlaunch("up", PLAIN, "--paused", *JSON, *some_qemu()).json["pid"]
    if not alive:
        kill_qemu(sevlaunch, pid)
    for name in ("guest.json", "evidence.json", "plan.json", "attestation.json"):
        (sevlaunch.runtime / "plain" / name).write_bytes(content)
    assert listed(sevlaunch) == {"plain": "paused" if alive else "exited"}
    for arguments in (("ps",), ("status", "plain"), ("logs", "plain"), ("evidence", "plain")):
        no_traceback(sevlaunch(*arguments, check=None))
    no_traceback(sevlaunch("down", "plain", "--now"))
    assert ended(pid)
    nothing_left(sevlaunch)


@pytest.mark.parametrize("name", ["guest.json", "evidence.json", "qemu.log", "launcher", "lock", "qemu"])
@pytest.mark.parametrize("what", ["fifo", "link", "folder", "file"])
def test_something_else_in_the_place_of_a_file_hangs_nobody(what: str, name: str, sevlaunch: Command) -> None:
    kill_qemu(sevlaunch, sevlaunch("up", PLAIN, "--paused", *JSON, *some_qemu()).json["pid"])
    file = sevlaunch.runtime / "plain" / name
    shutil.rmtree(file) if file.is_dir() else file.unlink()
    if what == "fifo":
        os.mkfifo(file)
    elif what == "link":
        file.symlink_to("/etc/passwd")
    elif what == "folder":
        file.mkdir()
    else:
        file.write_text("")
    assert listed(sevlaunch) == {"plain": "exited"}
    for arguments in (("status", "plain"), ("logs", "plain", "--qemu"), ("evidence", "plain"), ("down", "plain")):
        result = sevlaunch(*arguments, check=None, limit=30)
        no_traceback(result)
        assert "root:" not in result.stdout
    if (sevlaunch.runtime / "plain").exists():
        # A lock that is none can't be taken: somebody has to look at it.
        assert name in ("launcher", "lock")
        assert f"/{name} is a" in result.stderr
        assert result.code == 4
    else:
        nothing_left(sevlaunch)


def test_a_relative_runtime_folder_is_ignored_as_the_specification_says(sevlaunch: Command) -> None:
    sevlaunch.environment["XDG_RUNTIME_DIR"] = "run"
    sevlaunch.environment["XDG_STATE_HOME"] = "."
    sevlaunch.environment["XDG_CACHE_HOME"] = "cache"
    here = sevlaunch.base / "here"
    here.mkdir()
    for arguments in (("ps", *JSON), ("render", PLAIN, *some_qemu())):
        no_traceback(sevlaunch(*arguments, cwd=here))
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("count", range(5, 14))
def test_few_file_descriptors_are_said_and_change_no_answer(count: int, sevlaunch: Command) -> None:
    sevlaunch("up", PLAIN, "--paused", *some_qemu())

    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))

    for arguments in (("ps", *JSON), ("status", "plain", *JSON), ("up", PLAIN, *some_qemu()), ("logs", "plain")):
        result = sevlaunch(*arguments, check=None, preexec_fn=few)
        no_traceback(result)
        if result.code == 0 and arguments[-1] == "json":
            shown = result.json if isinstance(result.json, dict) else result.json[0]
            assert shown["state"] == "paused"
        elif arguments[0] == "up":
            assert result.code in (1, 4), result
        else:
            assert result.code in (0, 4), result
            assert "ulimit -n" in result.stderr or result.code == 0
    assert listed(sevlaunch) == {"plain": "paused"}
    assert sevlaunch("down", "plain").stdout == "plain: quit\n"
    nothing_left(sevlaunch)


def test_a_start_with_few_file_descriptors_leaves_nothing(sevlaunch: Command) -> None:
    codes = set()
    for count in range(5, 40, 2):

        def few(count: int = count) -> None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))

        result = sevlaunch("up", PLAIN, "--paused", *some_qemu(), check=None, preexec_fn=few)
        no_traceback(result)
        codes.add(result.code)
        if result.code == 0:
            sevlaunch("down", "plain")
        nothing_left(sevlaunch, (count, result))
    # Otherwise the numbers were wrong, and the test shows nothing.
    assert 4 in codes and codes <= {0, 4, 5}


def test_detached_guests_leave_no_zombie(sevlaunch: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    binary = some_qemu()[1]
    script = (
        "import sys, time\n"
        "from contextlib import suppress\n"
        "from pathlib import Path\n"
        "from sevlaunch import sync\n"
        f"profile = sync.Profile.load({str(PLAIN)!r}, overrides=[{binary!r}])\n"
        f"made = sync.plan(profile, sync.Host.probe({binary.partition('=')[2]!r}))\n"
        "with sync.launch(made, paused=True) as guest:\n"
        "    guest.detach()\n"
        "with sync.attach('plain') as again:\n"
        "    again.qmp('quit')\n"
        "    again.wait()\n"
        "tasks = Path('/proc/self/task')\n"
        "def children():\n"
        "    found = ''\n"
        "    for task in tasks.iterdir():\n"
        # A thread that ends meanwhile leaves its children to another.
        "        with suppress(FileNotFoundError): found += (task / 'children').read_text()\n"
        "    return found\n"
        "end = time.monotonic() + 30\n"
        "while children() and time.monotonic() < end: time.sleep(0.01)\n"
        "sys.exit(f'left: {children()}' if children() else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], env=sevlaunch.environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    sevlaunch("down", "plain")


def test_a_file_of_somebody_elses_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "record").write_text("x")
    with OpenFolder.open(tmp_path, owner=os.geteuid()) as folder:
        assert folder.read("record") == b"x"
        # As if the folder were another user's, and the file ours.
        folder.owner = os.geteuid() + 1
        with pytest.raises(UnsafeFile, match="belongs to another user"):
            folder.read("record")
