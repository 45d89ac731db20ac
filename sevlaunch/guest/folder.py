"""A guest's runtime folder, and who lives in it.

``NAME/`` belongs to the user who launches: lock, record, plan, evidence, QEMU's log. ``NAME/qemu/`` belongs to the
account that QEMU runs as: sockets, the console's log. Nothing in the second is opened by its name alone, or believed.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sevlaunch.errors import GuestEnded, GuestNotFound, HostError, UnsafeFile
from sevlaunch.guest.locks import Range, held_by_another
from sevlaunch.guest.record import Record, parse_record
from sevlaunch.guest.runtime import open_root
from sevlaunch.guest.safe_files import OpenFolder
from sevlaunch.host.accounts import PASS, Account, grant, withdraw_grants
from sevlaunch.plan.places import QEMU_FOLDER

# A symbolic link to the cgroup that was made for the guest.
CGROUP = "cgroup"
LOCK = "lock"
LAUNCHER = "launcher"
RECORD = "guest.json"
EVIDENCE = "evidence.json"
ATTESTATION = "attestation.json"
# Where a rehearsed SNP guest's reports are asked for.
REPORT_SOCKET = "report.sock"
# The last report that a command asked the guest for.
REPORT = "report.bin"
PLAN = "plan.json"
QEMU_LOG = "qemu.log"
# How the guest ended, where its launcher was there to see.
ENDED = "ended.json"
# Held open by the processes beside QEMU.
COMPANIONS = "companions"

# What reading something raises that is not there, or not as it should be.
_NOT_THERE = (FileNotFoundError, PermissionError, GuestNotFound, UnsafeFile)

TAIL_LINES = 12
_TAIL_BYTES = 16384


class GuestFolder:
    """The runtime folder of the guest ``name`` below ``root``."""

    def __init__(self, root: Path, name: str) -> None:
        # A program that attaches may name it relative to where it is.
        self.root = root.absolute()
        self.name = name
        self.path = self.root / name

    def file(self, name: str) -> Path:
        """The path of a file in the folder, for QEMU and for messages; sevlaunch itself opens it in :meth:`opened`."""
        return self.path / name

    @contextmanager
    def opened(self) -> Iterator[OpenFolder]:
        """The folder, to open files in it.

        :raise GuestNotFound: when it is not there.
        :raise HostError: when somebody else may write to it.
        """
        try:
            with open_root(self.root) as root:
                folder = root.folder(self.name, owner=os.geteuid())
        except FileNotFoundError as error:
            raise GuestNotFound(f"the guest {self.name!r} has gone") from error
        with folder:
            yield folder

    @contextmanager
    def qemu_folder(self) -> Iterator[OpenFolder]:
        """The folder of QEMU's account; as :meth:`opened`.

        :raise GuestEnded: when it is not there, or no more.
        """
        with self.opened() as folder:
            try:
                inner = folder.folder(QEMU_FOLDER)
            except FileNotFoundError as error:
                raise GuestEnded(f"the guest {self.name!r} does not run") from error
        with inner:
            yield inner

    def record(self) -> Record | None:
        """What the launcher wrote, or None if there is nothing yet, or nothing readable."""
        try:
            with self.opened() as folder:
                return parse_record(folder.read(RECORD))
        except (*_NOT_THERE, ValueError):
            return None

    def write_record(self, record: Record) -> None:
        """Replace the record, whole or not at all."""
        self.write(RECORD, record.to_json())

    def write(self, name: str, content: bytes) -> None:
        """Write a file with mode 0600, whole or not at all.

        :raise HostError: when the folder takes no more data.
        """
        with self.opened() as folder:
            folder.write(name, content)

    def evidence(self) -> dict[str, Any] | None:
        """The evidence that the launch wrote, if any."""
        evidence = self._document(EVIDENCE)
        return evidence and {**evidence, **self.attestation()}

    def ended(self) -> dict[str, Any] | None:
        """What the launcher wrote of the guest's end, if it was there to see."""
        return self._document(ENDED)

    def attestation(self) -> dict[str, Any]:
        """Report and certificates of a rehearsed SNP guest, once its launch is finished; else nothing."""
        record = self.record()
        found = self._document(ATTESTATION) if record and record.rehearsal else None
        return {key: found[key] for key in ("report", "certificates") if key in found} if found else {}

    def _document(self, name: str) -> dict[str, Any] | None:
        try:
            with self.opened() as folder:
                document = json.loads(folder.read(name))
        except (*_NOT_THERE, ValueError, RecursionError):
            return None
        return document if isinstance(document, dict) else None

    def log_tail(self, name: str = QEMU_LOG, *, lines: int = TAIL_LINES) -> list[str]:
        """The last lines of a log in the folder: of QEMU's, or of a process beside it."""
        try:
            with self.opened() as folder:
                text = folder.read_end(name, _TAIL_BYTES).decode("utf-8", "replace")
        except _NOT_THERE:
            return []
        return [line.rstrip() for line in text.splitlines() if line.strip()][-lines:]

    def connect(self, connection: socket.socket, name: str) -> None:
        """Connect to a socket of QEMU's.

        :raise OSError: when nobody listens there.
        """
        with self.qemu_folder() as folder:
            folder.connect(connection, name)

    def connect_own(self, connection: socket.socket, name: str) -> None:
        """Connect to a socket of a process beside QEMU, in the launching user's folder.

        :raise OSError: when nobody listens there.
        """
        with self.opened() as folder:
            folder.connect(connection, name)

    def lock_of(self, name: str, wanted: Range) -> Range | None:
        """The lock that somebody holds on ``wanted`` of a file in the folder, or None."""
        try:
            with self.opened() as folder:
                fd = folder.open_file(name, os.O_RDWR)
        except _NOT_THERE:
            return None
        try:
            return held_by_another(fd, wanted)
        finally:
            os.close(fd)

    def open_launcher(self) -> int:
        """The file with the locks of commands, opened for one that takes its turn at a monitor.

        :raise GuestNotFound: when the folder has gone.
        :raise HostError: when it can't be opened.
        """
        try:
            with self.opened() as folder:
                return folder.open_file(LAUNCHER, os.O_RDWR | os.O_CREAT)
        except FileNotFoundError as error:
            raise GuestNotFound(f"the guest {self.name!r} has gone") from error
        except OSError as error:
            raise HostError(f"can't open {self.file(LAUNCHER)}: {error.strerror}") from error

    def is_locked_by(self, fd: int) -> bool:
        """Whether the open file ``fd`` is the folder's lock, and not that of a folder which was there before."""
        try:
            with self.opened() as folder:
                return os.path.samestat(os.fstat(fd), folder.status(LOCK))
        except (FileNotFoundError, GuestNotFound):
            return False

    def make_qemu_folder(self, account: Account | None) -> None:
        """Make the folder where QEMU puts its files; the account's, where it runs as another user.

        :raise HostError: when it can't be made, or given to the account.
        """
        with self.opened() as folder:
            withdraw_grants(folder.fd)
            os.fchmod(folder.fd, 0o700)
            try:
                os.mkdir(QEMU_FOLDER, 0o700, dir_fd=folder.fd)
                if account:
                    with folder.folder(QEMU_FOLDER) as inner, open_root(self.root) as root:
                        os.fchown(inner.fd, account.uid, account.gid)
                        grant(folder.fd, account, PASS)
                        grant(root.fd, account, PASS)
            except OSError as error:
                raise HostError(f"can't make {self.file(QEMU_FOLDER)}: {error.strerror}") from error

    def clear(self) -> None:
        """Remove what an earlier guest of the name left: everything but the lock files."""
        # Two commands may remove the same folder at once.
        with contextlib.suppress(FileNotFoundError, GuestNotFound), self.opened() as folder:
            _remove_cgroup(folder)
            folder.clear(keep=(LOCK, LAUNCHER))

    def remove(self) -> None:
        """Remove the folder with everything in it; the lock files go last."""
        self.clear()
        # Another command may have begun to use the name in this moment: then the folder is its own.
        with contextlib.suppress(OSError, GuestNotFound), open_root(self.root) as root, self.opened() as folder:
            folder.clear()
            os.rmdir(self.name, dir_fd=root.fd)


def guests(root: Path) -> list[GuestFolder]:
    """The folders below ``root``, by name.

    :raise HostError: when ``root`` belongs to somebody else.
    """
    try:
        opened = open_root(root)
    except FileNotFoundError:
        return []
    found = []
    with opened:
        for name in opened.names():
            # Whatever else is there is no guest.
            with contextlib.suppress(FileNotFoundError, UnsafeFile), opened.folder(name, owner=os.geteuid()):
                found.append(GuestFolder(root, name))
    return found


def find(root: Path, name: str) -> GuestFolder:
    """The folder of the guest ``name``.

    :raise GuestNotFound: with the names there are.
    :raise HostError: when ``root`` belongs to somebody else.
    """
    folder = GuestFolder(root, name)
    if "/" not in name and name not in ("", ".", ".."):
        # What is no folder of this user's is no guest, either.
        with contextlib.suppress(GuestNotFound, UnsafeFile), folder.opened():
            return folder
    names = ", ".join(other.name for other in guests(root))
    raise GuestNotFound(
        f"no guest {name!r} is known in {root}",
        hint=f"there are: {names}" if names else "no guest is there; start one with: sevlaunch up PROFILE",
    )


def _remove_cgroup(folder: OpenFolder) -> None:
    # It can't be removed while a process is in it: that is somebody else's guest by now.
    with contextlib.suppress(OSError):
        if folder.status(CGROUP).st_uid == folder.owner:
            Path(os.readlink(CGROUP, dir_fd=folder.fd)).rmdir()
