"""A guest's runtime folder, and who lives in it.

A held ``lock`` whose record says that the launch never finished, while no command is starting the guest, is what a
killed launcher leaves behind; the next claim of the name clears it away.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from typing import Any

import msgspec
from msgspec import Struct, field

from sevlaunch.atomic import space_hint, write_whole
from sevlaunch.errors import GuestNotFound, HostError, NameTaken
from sevlaunch.guest.locks import REMOVING, STARTING, WHOLE, Range, lock_is_held, lock_of, take
from sevlaunch.guest_type import GuestType
from sevlaunch.host.accounts import PASS, READ, WRITE, Account, grant, has_grant, withdraw_grants
from sevlaunch.plan.places import COMMANDS_SOCKET

# A symbolic link to the cgroup that was made for the guest.
CGROUP = "cgroup"
LOCK = "lock"
LAUNCHER = "launcher"
RECORD = "guest.json"
EVIDENCE = "evidence.json"
ATTESTATION = "attestation.json"
PLAN = "plan.json"
QEMU_LOG = "qemu.log"


class Record(Struct, frozen=True):
    """What a command needs to know about a guest that another command started.

    ``start_time`` is field 22 of /proc/PID/stat, clock ticks since boot: with it a reused PID is told apart.
    ``companions`` are (pid, start time) of the processes beside QEMU.
    """

    name: str
    pid: int
    start_time: int
    launched: bool
    profile: str
    command: list[str]
    guest_type: GuestType
    vcpus: int
    binary: str
    qemu_version: str
    firmware: str
    reboot: str
    rehearsal: bool = False
    companions: list[tuple[int, int]] = field(default_factory=list)


class GuestFolder:
    """The runtime folder of the guest ``name`` below ``root``."""

    def __init__(self, root: Path, name: str) -> None:
        self.root = root
        self.name = name
        self.path = root / name

    def file(self, name: str) -> Path:
        """The path of a file in the folder."""
        return self.path / name

    def record(self) -> Record | None:
        """What the launcher wrote, or None if there is nothing yet, or nothing readable."""
        try:
            data = json.loads(self.file(RECORD).read_bytes())
            data["companions"] = [(int(pid), int(start)) for pid, start in data["companions"]]
            return Record(**{**data, "guest_type": GuestType(data["guest_type"])})
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def write_record(self, record: Record) -> None:
        """Replace the record, whole or not at all."""
        self.write(RECORD, json.dumps(msgspec.to_builtins(record), indent=1).encode())

    def write(self, name: str, content: bytes) -> None:
        """Write a file with mode 0600, whole or not at all.

        :raise HostError: when the folder takes no more data.
        """
        write_whole(self.file(name), content)

    def evidence(self) -> dict[str, Any] | None:
        """The evidence that the launch wrote, if any."""
        evidence = self._document(EVIDENCE)
        return evidence and {**evidence, **(self.attestation() or {})}

    def attestation(self) -> dict[str, Any] | None:
        """Report and certificates of a rehearsed SNP guest, once its launch is finished."""
        return self._document(ATTESTATION)

    def _document(self, name: str) -> dict[str, Any] | None:
        try:
            document = json.loads(self.file(name).read_bytes())
        except (OSError, ValueError):
            return None
        return document if isinstance(document, dict) else None

    def alive(self) -> bool:
        """Whether QEMU lives (or is just being started)."""
        return lock_is_held(self.file(LOCK)) or (self.file(COMMANDS_SOCKET).exists() and self.pid() is not None)

    def is_started_by_hand(self) -> bool:
        """Whether a QEMU lives that the script of `render` started: it has the lock file open, and no lock on it."""
        return not lock_is_held(self.file(LOCK)) and self.alive()

    def launching(self) -> bool:
        """Whether a command is starting the guest at this moment."""
        return lock_of(self.file(LAUNCHER), REMOVING) == STARTING

    def open_launcher(self) -> int:
        """The file with the locks of commands, opened for one that takes its turn at a monitor.

        :raise GuestNotFound: when the folder has gone.
        :raise HostError: when it can't be opened.
        """
        file = self.file(LAUNCHER)
        try:
            return os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except FileNotFoundError as error:
            raise GuestNotFound(f"the guest {self.name!r} has gone") from error
        except OSError as error:
            raise HostError(f"can't open {file}: {error.strerror}", hint=space_hint(error)) from error

    def connect(self, connection: socket.socket, name: str) -> None:
        """Connect to a socket of QEMU's.

        :raise OSError: when nobody listens there.
        """
        connection.connect(str(self.file(name)))

    def pid(self) -> int | None:
        """The PID of the QEMU that has the lock file open, however it was started."""
        record = self.record()
        if record and process_start_time(record.pid) == record.start_time:
            return record.pid
        return _holder(self.file(LOCK), exclude=os.getpid())

    def is_locked_by(self, fd: int) -> bool:
        """Whether the open file ``fd`` is the folder's lock, and not that of a folder which was there before."""
        try:
            return os.path.samestat(os.fstat(fd), self.file(LOCK).stat())
        except FileNotFoundError:
            return False

    def share_with(self, account: Account | None) -> None:
        """Let the account put its files into the folder, and remove only those; without one, nobody.

        What it can't do is to change the files that root reads again, such as the record.
        """
        withdraw_grants(self.path)
        self.path.chmod(0o1700 if account else 0o700)
        if account:
            grant(self.path, account, READ | WRITE | PASS)
            grant(self.root, account, PASS)

    def clear(self) -> None:
        """Remove what an earlier guest of the name left: everything but the lock files."""
        # Two commands may remove the same folder at once.
        with contextlib.suppress(FileNotFoundError):
            for file in self.path.iterdir():
                if file.name == CGROUP:
                    # It can't be removed while a process is in it: that is somebody else's guest by now.
                    with contextlib.suppress(OSError):
                        if file.lstat().st_uid == os.geteuid():
                            file.readlink().rmdir()
                if file.name not in (LOCK, LAUNCHER):
                    file.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the folder with everything in it; the lock files go last."""
        self.clear()
        for name in (LOCK, LAUNCHER):
            self.file(name).unlink(missing_ok=True)
        # Another command may have begun to use the name in this moment: then the folder is its own.
        with contextlib.suppress(OSError):
            self.path.rmdir()


def guests(root: Path) -> list[GuestFolder]:
    """The folders below ``root``, by name."""
    if not root.is_dir():
        return []
    return [GuestFolder(root, path.name) for path in sorted(root.iterdir()) if path.is_dir()]


def find(root: Path, name: str) -> GuestFolder:
    """The folder of the guest ``name``.

    :raise GuestNotFound: with the names there are.
    """
    folder = GuestFolder(root, name)
    if "/" not in name and name not in ("", ".", "..") and folder.path.is_dir():
        return folder
    names = ", ".join(other.name for other in guests(root))
    raise GuestNotFound(
        f"no guest {name!r} is known in {root}",
        hint=f"there are: {names}" if names else "no guest is there; start one with: sevlaunch up PROFILE",
    )


def prepare_root(root: Path) -> None:
    """Create the folder of all guests, for this user alone.

    :raise HostError: when it can't be had, or belongs to somebody else.
    """
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = root.lstat()
    except OSError as error:
        raise HostError(
            f"can't create {root}: {error.strerror}", hint="set XDG_RUNTIME_DIR to a folder of yours"
        ) from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise HostError(f"{root} is no folder of this user", hint="remove it, or set XDG_RUNTIME_DIR")
    if stat.S_IMODE(status.st_mode) != 0o700 and not has_grant(root):
        root.chmod(0o700)


@contextlib.contextmanager
def hold_launcher(folder: GuestFolder, purpose: Range = STARTING) -> Iterator[None]:
    """Be the one command that starts the guest or, with :data:`~sevlaunch.guest.locks.REMOVING`, removes it.

    :raise NameTaken: when another one is.
    """
    prepare_root(folder.root)
    fd = _claim(folder, LAUNCHER, purpose)
    try:
        yield
    finally:
        os.close(fd)


def claim_lock(folder: GuestFolder) -> int:
    """Take the guest's lock; the file descriptor is for QEMU to inherit. Call it under :func:`hold_launcher`.

    :raise NameTaken: when the guest lives.
    """
    return _claim(folder, LOCK, WHOLE)


def _claim(folder: GuestFolder, name: str, wanted: Range) -> int:
    file = folder.file(name)
    while True:
        try:
            # Not mkdir(exist_ok=True): it looks again, and fails when the folder has gone by then.
            with contextlib.suppress(FileExistsError):
                folder.path.mkdir(mode=0o700)
            fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except FileNotFoundError:
            if folder.path.is_symlink():
                raise HostError(f"{folder.path} is a symbolic link to nowhere", hint="remove it") from None
            continue
        except OSError as error:
            _withdraw(folder, name)
            raise HostError(f"can't create {file}: {error.strerror}", hint=space_hint(error)) from error
        if not take(fd, wanted):
            os.close(fd)
            raise _launching(folder) if name == LAUNCHER else taken(folder)
        with contextlib.suppress(FileNotFoundError):
            if os.fstat(fd).st_ino == file.stat().st_ino:
                return fd
        # The folder was removed between opening and locking: that file is no one's any more.
        os.close(fd)


def _withdraw(folder: GuestFolder, name: str) -> None:
    """Take away what a claim has made by then, if nothing else is in the folder."""
    with contextlib.suppress(OSError):
        if name == LOCK:
            folder.file(LAUNCHER).unlink()
        folder.path.rmdir()


def _launching(folder: GuestFolder) -> NameTaken:
    return NameTaken(
        f"the guest {folder.name!r} is being started or taken down by another command",
        hint="wait for it, or give this one another name with --name",
    )


def taken(folder: GuestFolder) -> NameTaken:
    """The error for a name whose guest runs."""
    pid = folder.pid()
    return NameTaken(
        f"a guest {folder.name!r} runs already" + (f" (pid {pid})" if pid else ""),
        hint=f"take it down with `sevlaunch down {quote(folder.name)}`, or give this one another name with --name",
    )


def process_start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot (/proc/PID/stat, field 22); None for a dead one."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The name in field 2 may hold spaces and parentheses.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in ("Z", "X") else int(fields[19])


def _holder(lock: Path, *, exclude: int) -> int | None:
    """The process that has ``lock`` open and is not ``exclude``; QEMU before anything else."""
    try:
        wanted = lock.stat()
    except OSError:
        return None
    found: list[int] = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == exclude:
            continue
        # It may end, and may be another user's.
        with contextlib.suppress(OSError):
            if any(_is_open_as(link, wanted) for link in (process / "fd").iterdir()):
                found.append(int(process.name))
    return next((pid for pid in found if _is_qemu(pid)), None)


def _is_open_as(link: Path, wanted: os.stat_result) -> bool:
    try:
        return os.path.samestat(link.stat(), wanted)
    except FileNotFoundError:
        # Closed since the folder was listed.
        return False


def _is_qemu(pid: int) -> bool:
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"-machine" in arguments and b"-chardev" in arguments
