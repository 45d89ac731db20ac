"""scripts/test-systems: what it reads from the runs and from this machine, and that a run in a root leaves nothing."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests import needs
from tests.conftest import ROOT, wait_until
from tests.guest.machine_files import MachineFiles

sys.path.insert(0, str(ROOT / "scripts"))

from clean_roots import ACCOUNTS, CleanRoot, RootError, checksum, mirror, network_settings, network_variables, only_one
from test_systems import Outcome, command_for_root, counts, details, main


@pytest.mark.parametrize(
    ("log", "found"),
    [
        (
            "= 5 failed, 27 passed, 64 skipped, 3 warnings in 12.30s (0:20:34) =",
            ["27 passed", "64 skipped", "5 failed"],
        ),
        ("..s\n2 passed, 1 skipped in 3.01s\n", ["2 passed", "1 skipped"]),
        ("1 passed in 3.01s\n== 1 skipped, 2 errors in 0.5s ==\n", ["1 skipped", "2 errors"]),
        ("Found 3 errors in 2 files (checked 341 source files)\n", []),
        ("", []),
    ],
)
def test_what_pytest_counted_last_is_told(log: str, found: list[str]) -> None:
    assert counts(log) == found


def test_each_failure_and_each_reason_to_skip_is_told_once() -> None:
    log = (
        "SKIPPED [2] tests/a.py:14: no tea: none\nSKIPPED [1] ../p/b.py:3: no cup\n"
        "SKIPPED [1] tests/c.py:9: no tea: none\nERROR tests/d.py - E\n"
        "FAILED tests/a.py::test[x y] - assert 0\n= 1 failed in 1.0s =\n"
    )
    assert details(log) == [
        "ERROR tests/d.py - E",
        "FAILED tests/a.py::test[x y] - assert 0",
        "3 skipped: no tea: none",
        "1 skipped: no cup",
    ]
    assert details("1 passed in 3.01s\n") == []


def test_a_run_is_good_when_it_passed_and_left_apt_alone() -> None:
    passed = Outcome(0, "1 passed in 3.01s\n", 3.4, apt_unchanged=True)
    assert (str(passed), passed.good) == ("ok, 1 passed, 3 s, apt unchanged", True)
    changed = Outcome(0, "", 3.4, apt_unchanged=False)
    assert (str(changed), changed.good) == ("ok, 3 s, APT CHANGED", False)
    failed = Outcome(1, "1 failed in 3.01s\n", 3.4, apt_unchanged=True)
    assert (str(failed), failed.good) == ("exit 1, 1 failed, 3 s, apt unchanged", False)


def test_the_command_for_an_administrator_is_found_in_what_lib_sh_says(tmp_path: Path) -> None:
    for program in ("dpkg-query", "id", "cat"):
        (tmp_path / program).write_text("#!/bin/sh\necho 1000\n")
        (tmp_path / program).chmod(0o755)
    lacking = '. "$0"; system_id() { echo debian; }; install_missing passt'
    done = subprocess.run(
        ["/bin/bash", "-c", lacking, str(ROOT / "scripts/lib.sh")],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    command = command_for_root(done.stderr)
    assert command.startswith("apt-get update && apt-get install ")
    assert command.endswith(" passt")
    assert command_for_root("quickstart: done\n") == ""


def test_only_how_to_reach_the_network_comes_along() -> None:
    given = {
        "http_proxy": "p",
        "NO_PROXY": "n",
        "PIP_CERT": "c",
        "PIP_FIND_LINKS": "/w",
        "PYTHONPATH": "x",
        "LANG": "C",
    }
    assert network_variables(given) == {"http_proxy": "p", "NO_PROXY": "n", "PIP_CERT": "c"}
    dump = 'APT "";\nAcquire::http::Proxy "p";\nAcquire::Check-Valid-Until "false";\nAcquire::Languages "none";\n'
    assert network_settings(dump) == 'Acquire::http::Proxy "p";\nAcquire::Check-Valid-Until "false";\n'


def test_the_mirror_is_this_machines_main_repository() -> None:
    listed = "http://m.example/debian-security\nhttps://other.example/apt\nhttp://m.example/debian/\n"
    assert mirror(listed) == "http://m.example/debian"
    assert mirror("https://other.example/apt\n") == "http://deb.debian.org/debian"


def test_whatever_changes_in_a_folder_changes_its_sum(tmp_path: Path) -> None:
    file, link = tmp_path / "sources.list", tmp_path / "link"
    file.write_text("deb x\n")
    link.symlink_to("a")
    seen = [checksum(tmp_path)]
    assert checksum(tmp_path) == seen[0]
    file.write_text("deb y\n")
    seen.append(checksum(tmp_path))
    file.chmod(0o600)
    seen.append(checksum(tmp_path))
    link.unlink()
    link.symlink_to("b")
    seen.append(checksum(tmp_path))
    (tmp_path / "apt.conf.d").mkdir()
    seen.append(checksum(tmp_path))
    file.rename(tmp_path / "other.list")
    seen.append(checksum(tmp_path))
    assert len(set(seen)) == len(seen)


def test_what_a_killed_run_left_is_removed_and_two_runs_dont_meet(tmp_path: Path) -> None:
    (tmp_path / "roots/debian-12-root/etc").mkdir(parents=True)
    with only_one(tmp_path / "roots") as folder:
        assert list(folder.iterdir()) == []
        (folder / "project.tar").touch()
        with pytest.raises(RootError, match="another run is under way"), only_one(folder):
            pass
        assert (folder / "project.tar").exists()
    assert list(folder.iterdir()) == []


def test_an_ordinary_user_is_told_what_an_administrator_has_to_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(sys, "argv", ["test_systems.py", "--system", "13", "--", "-k", "a b"])
    assert main() == 1
    assert capsys.readouterr().err.endswith(f"As root, run:\n    {ROOT}/scripts/test-systems --system 13 -- -k 'a b'\n")


@pytest.fixture
def small_root(base: Path) -> CleanRoot:
    """A root with no more than it takes to enter it."""
    needs.root("entering a root")
    done = subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no mount namespace can be had here: {done.stderr.strip()}")
    files = MachineFiles()
    programs = {"sh": "dash", "umount": "mount", "sleep": "coreutils", "setpriv": "util-linux", "env": "coreutils"}
    for name in ("/etc/passwd", "/etc/group", *(needs.program(*program) for program in programs.items())):
        files.add(Path(name))
    files.add_libraries()
    root = base / "root"
    for entry in files.entries.values():
        path = root / entry.name
        if stat.S_ISDIR(entry.mode):
            path.mkdir()
        elif stat.S_ISLNK(entry.mode):
            path.symlink_to(os.fsdecode(entry.data))
        else:
            path.write_bytes(entry.data)
            path.chmod(stat.S_IMODE(entry.mode))
    for name in ("proc", "sys", "dev", "run", "root"):
        (root / name).mkdir(exist_ok=True)
    return CleanRoot(root)


def left_of(root: CleanRoot) -> list[str]:
    """Mounts below a root, and processes in it."""
    mounts = [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(root.folder) in line]
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    return [*mounts, *(os.fsdecode(one) for one in commands if b"sleep\x00987654" in one)]


def test_a_run_in_a_root_is_alone_there_and_leaves_nothing(small_root: CleanRoot) -> None:
    script = 'echo "$$ $HOME"; echo /proc/[0-9]*; [ -c /dev/null ] && sleep 987654 & : > /kept; exit 3'
    log = small_root.folder.parent / "log"
    with log.open("w") as output:
        assert small_root.run(ACCOUNTS["root"], ["sh", "-c", script], output) == 3
    said, processes, *more = log.read_text().splitlines()
    assert (said.split()[1], more) == ("/root", [])
    # The first process, which entered, and this one; the machine's others are not to be seen.
    assert processes.split()[:2] == ["/proc/1", f"/proc/{said.split()[0]}"]
    assert len(processes.split()) <= 3
    assert (small_root.folder / "kept").exists()
    assert left_of(small_root) == []


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL], ids=lambda sent: sent.name)
def test_whatever_ends_it_nothing_of_a_run_is_left(sent: signal.Signals, small_root: CleanRoot) -> None:
    program = (
        "import sys; from pathlib import Path; from clean_roots import ACCOUNTS, CleanRoot\n"
        "CleanRoot(Path(sys.argv[1])).run(ACCOUNTS['root'], ['sleep', '987654'], sys.stdout)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, small_root.folder],
        env={**os.environ, "PYTHONPATH": str(ROOT / "scripts")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: left_of(small_root), 60, "a run")
    process.send_signal(sent)
    process.wait(60)
    wait_until(lambda: not left_of(small_root), 60, "the end of all that ran")
