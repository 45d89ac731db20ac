"""GuestFolder: who holds a name, and who does not, whatever was there before."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from sevlaunch.errors import GuestNotFound, HostError, NameTaken
from sevlaunch.guest.claims import claim_lock, hold_launcher
from sevlaunch.guest.folder import GuestFolder, find, guests
from sevlaunch.guest.life import is_alive, is_starting, qemu_pid
from sevlaunch.guest.process import Process, process_start_time
from sevlaunch.guest.record import CompanionProcess, FileIdentity, Record
from sevlaunch.guest.runtime import prepare_root
from sevlaunch.guest_type import GuestType
from tests import needs
from tests.guest.support import lock_of

RECORD = Record(
    name="g",
    pid=1,
    start_time=0,
    lock=FileIdentity(1, 2),
    launched=True,
    profile="g.yaml",
    command=["qemu"],
    guest_type=GuestType.NONE,
    vcpus=1,
    binary="qemu",
    qemu_version="10.0.0",
    firmware="OVMF.fd",
    reboot="stop",
    console_log=None,
    vsock_cid=None,
    companions=[CompanionProcess(7, 8, "passt0")],
)


@pytest.fixture
def folder(tmp_path: Path) -> GuestFolder:
    """A guest's folder that is not there yet, below a root that is not there either."""
    return GuestFolder(tmp_path / "root", "g")


@contextmanager
def held_by_a_process(folder: GuestFolder, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """The guest's lock, held by another process alone, as QEMU has it."""
    with hold_launcher(folder):
        fd = claim_lock(folder)
        holder = subprocess.Popen(
            [sys.executable, "-c", "import signal; print(flush=True); signal.pause()", *arguments],
            pass_fds=[fd],
            stdout=subprocess.PIPE,
        )
        os.close(fd)
        # Its command line is there once it runs.
        assert holder.stdout and holder.stdout.readline()
    try:
        yield holder
    finally:
        holder.kill()
        holder.communicate()


def test_a_lock_that_nobody_holds_is_free(folder: GuestFolder) -> None:
    assert not lock_of(folder.file("lock"))
    with hold_launcher(folder):
        os.close(claim_lock(folder))
    assert folder.file("lock").exists()
    assert not is_alive(folder)
    assert not is_starting(folder)


def test_a_held_lock_is_seen_and_looking_does_not_take_it(folder: GuestFolder) -> None:
    with hold_launcher(folder):
        fd = claim_lock(folder)
        assert is_starting(folder)
        assert all(lock_of(folder.file("lock")) for _ in range(3))
        with pytest.raises(NameTaken, match="'g' runs already"):
            claim_lock(folder)
        with pytest.raises(NameTaken, match="'g' is being started or taken down"), hold_launcher(folder):
            pass
        os.close(fd)
        assert not lock_of(folder.file("lock"))
    assert not is_starting(folder)


def test_a_lock_dies_with_the_last_process_that_has_it(folder: GuestFolder) -> None:
    with held_by_a_process(folder) as holder:
        assert is_alive(folder)
        assert not is_starting(folder)
        with hold_launcher(folder), pytest.raises(NameTaken):
            claim_lock(folder)
        holder.kill()
        holder.wait()
        assert not is_alive(folder)
        with hold_launcher(folder):
            os.close(claim_lock(folder))


def test_the_holder_is_found_without_a_record_if_it_is_a_qemu(folder: GuestFolder) -> None:
    with held_by_a_process(folder):
        assert qemu_pid(folder) is None
    folder.remove()
    with held_by_a_process(folder, "-machine", "q35", "-chardev", "null") as holder:
        assert qemu_pid(folder) == holder.pid


def test_a_lock_whose_folder_was_removed_before_it_was_locked_is_no_lock(
    folder: GuestFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_lock = fcntl.fcntl
    removals = 3

    def remove_first(fd: int, command: int, argument: bytes) -> bytes:
        nonlocal removals
        if command == fcntl.F_OFD_SETLK and removals:
            removals -= 1
            folder.remove()
        return bytes(really_lock(fd, command, argument))

    prepare_root(folder.root)
    monkeypatch.setattr(fcntl, "fcntl", remove_first)
    fd = claim_lock(folder)
    assert removals == 0
    assert folder.is_locked_by(fd)
    assert lock_of(folder.file("lock"))
    os.close(fd)


def test_a_lock_whose_file_was_replaced_before_it_was_locked_is_no_lock(
    folder: GuestFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_lock = fcntl.fcntl
    others: list[int] = []

    def replace_first(fd: int, command: int, argument: bytes) -> bytes:
        if command == fcntl.F_OFD_SETLK and not others:
            others.append(-1)
            folder.remove()
            others.append(claim_lock(folder))
        return bytes(really_lock(fd, command, argument))

    prepare_root(folder.root)
    monkeypatch.setattr(fcntl, "fcntl", replace_first)
    with pytest.raises(NameTaken):
        claim_lock(folder)
    assert folder.is_locked_by(others[1])
    os.close(others[1])


def test_a_folder_that_goes_away_while_it_is_claimed_is_made_again(
    folder: GuestFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_make = os.mkdir
    removals = 3

    def remove_after(name: str | Path, mode: int, *, dir_fd: int | None = None) -> None:
        nonlocal removals
        try:
            really_make(name, mode, dir_fd=dir_fd)
        finally:
            # The folder of all guests is named by its path; it stays.
            if removals and dir_fd is not None:
                removals -= 1
                os.rmdir(name, dir_fd=dir_fd)

    prepare_root(folder.root)
    folder.path.mkdir()
    monkeypatch.setattr(os, "mkdir", remove_after)
    fd = claim_lock(folder)
    assert removals == 0
    assert folder.is_locked_by(fd)
    os.close(fd)


@pytest.mark.parametrize("link", [True, False])
def test_something_else_in_the_place_of_the_folder_is_refused(link: bool, folder: GuestFolder) -> None:
    prepare_root(folder.root)
    if link:
        folder.path.symlink_to("nowhere")
    else:
        folder.path.write_text("")
    with pytest.raises(HostError), hold_launcher(folder):
        pass


def test_the_lock_of_a_folder_that_was_there_before_is_told_apart(folder: GuestFolder) -> None:
    prepare_root(folder.root)
    old = claim_lock(folder)
    assert folder.is_locked_by(old)
    folder.remove()
    assert not folder.is_locked_by(old)
    new = claim_lock(folder)
    assert (folder.is_locked_by(old), folder.is_locked_by(new)) == (False, True)
    os.close(old)
    os.close(new)


def test_a_pid_that_was_reused_is_not_the_guest(folder: GuestFolder) -> None:
    with hold_launcher(folder):
        pass
    with held_by_a_process(folder) as holder:
        start = process_start_time(holder.pid)
        assert start
        folder.write_record(replace(RECORD, pid=holder.pid, start_time=start))
        assert qemu_pid(folder) == holder.pid
        folder.write_record(replace(RECORD, pid=holder.pid, start_time=start - 1))
        assert qemu_pid(folder) is None
        assert Process.attach(holder.pid, start - 1) is None
        attached = Process.attach(holder.pid, start)
        assert attached
        attached.close()


def test_a_process_that_has_ended_has_no_start_time() -> None:
    child = subprocess.Popen(["/bin/true"])
    pidfd = os.pidfd_open(child.pid)
    assert select.select([pidfd], [], [], 30)[0]
    # A zombie is dead, too.
    assert process_start_time(child.pid) is None
    assert Process.attach(child.pid) is None
    child.wait()
    assert process_start_time(child.pid) is None
    os.close(pidfd)


def test_a_process_with_an_odd_name_has_its_start_time(tmp_path: Path) -> None:
    odd = tmp_path / "a) R 1 (b"
    odd.symlink_to("/bin/sleep")
    child = subprocess.Popen([odd, "600"])
    try:
        plain = subprocess.Popen(["/bin/sleep", "600"])
        try:
            first, second = process_start_time(child.pid), process_start_time(plain.pid)
            assert first and second and 0 <= second - first < 6000
        finally:
            plain.kill()
            plain.wait()
    finally:
        child.kill()
        child.wait()


@pytest.mark.parametrize("lock", ["lock", "launcher"])
def test_a_symlink_in_the_place_of_a_lock_is_refused(lock: str, folder: GuestFolder, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    prepare_root(folder.root)
    folder.path.mkdir(mode=0o700)
    folder.file(lock).symlink_to(victim)
    with pytest.raises(HostError, match=f"/{lock} is a link, and no regular file"), hold_launcher(folder):
        claim_lock(folder)
    assert not victim.exists()


def test_a_root_that_is_a_symlink_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "root").symlink_to(tmp_path / "real")
    with pytest.raises(HostError, match="is no folder of this user"):
        prepare_root(tmp_path / "root")


def test_a_root_of_somebody_else_is_refused(tmp_path: Path) -> None:
    needs.root("giving a folder away")
    root = tmp_path / "root"
    root.mkdir(mode=0o700)
    os.chown(root, 12345, 12345)
    with pytest.raises(HostError, match="is no folder of this user"):
        prepare_root(root)


def test_a_root_that_is_a_file_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.write_text("")
    with pytest.raises(HostError, match="can't create"):
        prepare_root(root)


def test_a_root_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    root = tmp_path / "a/b/root"
    root.mkdir(mode=0o755, parents=True)
    prepare_root(root)
    assert stat.S_IMODE(root.stat().st_mode) == 0o700


def test_a_record_comes_back_as_it_was_written(folder: GuestFolder) -> None:
    with hold_launcher(folder):
        pass
    folder.write_record(RECORD)
    assert folder.record() == RECORD
    assert stat.S_IMODE(folder.file("guest.json").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b"\xff\xfe",
        b'{"companions": 1}',
        b'{"companions": []}',
        b"1" * 5000,
        b"[" * 100_000,
        b" " * (5 << 20),
    ],
    ids=lambda content: repr(content[:20]),
)
def test_a_record_that_is_no_record_is_none(content: bytes, folder: GuestFolder) -> None:
    with hold_launcher(folder):
        pass
    folder.file("guest.json").write_bytes(content)
    folder.file("evidence.json").write_bytes(content)
    assert folder.record() is None
    assert folder.evidence() in (None, {}, {"companions": 1}, {"companions": []})


def test_a_file_is_written_whole_or_not_at_all(folder: GuestFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    with hold_launcher(folder):
        pass
    folder.write("file", b"old")

    def fail(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(HostError, match=r"can't write .*/file: No space left on device"):
        folder.write("file", b"new")
    assert folder.file("file").read_bytes() == b"old"
    assert not list(folder.path.glob(".new*"))


def test_removing_takes_everything_and_twice_is_no_error(folder: GuestFolder) -> None:
    with hold_launcher(folder):
        os.close(claim_lock(folder))
        folder.write("x.json", b"")
        folder.clear()
        assert {path.name for path in folder.path.iterdir()} == {"lock", "launcher"}
    folder.remove()
    assert not folder.path.exists()
    folder.remove()


def test_only_the_folders_below_the_root_are_guests(folder: GuestFolder) -> None:
    assert guests(folder.root) == []
    with hold_launcher(folder):
        pass
    (folder.root / "file").write_text("")
    assert [found.name for found in guests(folder.root)] == ["g"]
    assert find(folder.root, "g").path == folder.path
    for name in ("", ".", "..", "g/", "../root/g", str(folder.path), "file", "G"):
        with pytest.raises(GuestNotFound, match="no guest"):
            find(folder.root, name)


def test_a_process_that_is_signalled_after_its_end_is_no_error() -> None:
    child = subprocess.Popen(["/bin/sleep", "600"])
    process = Process.attach(child.pid)
    assert process
    assert not process.ended
    process.kill()
    assert process.ended
    child.wait()
    process.signal(signal.SIGTERM)
    process.close()
