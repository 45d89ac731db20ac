"""The log of a guest's console: made before QEMU starts, kept after its end.

It lies in the guest's state folder, which is the launching user's; QEMU's account may write into the file, and nothing
else there. :mod:`sevlaunch.guest.keeper` takes out of its beginning what is too old.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sevlaunch.atomic import make_private_folder, space_hint
from sevlaunch.errors import HostError
from sevlaunch.guest.folder import GuestFolder
from sevlaunch.guest.safe_files import OpenFolder
from sevlaunch.host.accounts import WRITE, Account, grant, let_through
from sevlaunch.host.folders import state_folder
from sevlaunch.plan.places import CONSOLE_LOG

if TYPE_CHECKING:
    from sevlaunch.plan.console import ConsolePlan

TIMES = "console.times"
# The log of the start before this one.
EARLIER = f"{CONSOLE_LOG}.1"


class ConsoleLog:
    """The log of a guest that is being started.

    :param log: a descriptor of it; ``times``, of the file that gets when what came; ``bound``, bytes that are kept.
    :param journal: whether its lines go into systemd's journal, too.
    """

    def __init__(self, log: int, times: int, bound: int, *, journal: bool) -> None:
        self.log = log
        self.times = times
        self.bound = bound
        self.journal = journal

    def close(self) -> None:
        """Leave the log to QEMU and the keeper."""
        os.close(self.log)
        os.close(self.times)


def make_console_log(console: ConsolePlan, account: Account | None) -> ConsoleLog:
    """Make the log anew, and put the one before it aside.

    :param account: whom QEMU runs as, where it is another user.
    :raise HostError: when it can't be made.
    """
    log = console.log
    try:
        make_private_folder(log.parent)
        with OpenFolder.open(log.parent, owner=os.geteuid()) as folder:
            with contextlib.suppress(FileNotFoundError):
                os.rename(log.name, EARLIER, src_dir_fd=folder.fd, dst_dir_fd=folder.fd)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(TIMES, dir_fd=folder.fd)
            fd = folder.open_file(log.name, os.O_RDWR | os.O_CREAT | os.O_EXCL)
            times = folder.open_file(TIMES, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    except OSError as error:
        raise HostError(
            f"can't make the console's log {log}: {error.strerror}",
            hint=space_hint(error) or "set XDG_STATE_HOME to a folder of yours",
        ) from error
    if account:
        grant(fd, account, WRITE)
        let_through(log.parent, account)
    return ConsoleLog(fd, times, console.log_size, journal=console.journal)


def log_path(folder: GuestFolder) -> Path:
    """Where the log of a guest's console is, or of the last one of its name.

    :raise FileNotFoundError: when it has none.
    """
    record = folder.record()
    if record:
        if record.console_log is None:
            raise FileNotFoundError(f"{folder.name} has no console")
        return Path(record.console_log)
    # One that the script of `render` started has no record, nor has one that has gone.
    kept = list((state_folder() / folder.name).glob(f"*/{CONSOLE_LOG}"))
    if not kept:
        raise FileNotFoundError(f"nothing is kept of the console of {folder.name}")
    return max(kept, key=lambda log: log.lstat().st_mtime)


def has_log(folder: GuestFolder) -> bool:
    """Whether anything is known of what a guest's console showed."""
    try:
        return log_path(folder).exists()
    except FileNotFoundError:
        return False


@contextmanager
def opened_log_folder(folder: GuestFolder) -> Iterator[OpenFolder]:
    """The folder with the log of a guest's console.

    :raise FileNotFoundError: when there is none.
    """
    with OpenFolder.open(log_path(folder).parent, owner=os.geteuid()) as opened:
        yield opened


def log_end(folder: GuestFolder, size: int) -> bytes:
    """The last ``size`` bytes of the console's log; empty where there is none."""
    try:
        with opened_log_folder(folder) as opened:
            # Zeros stand for what was taken out, where a file system has no holes.
            return opened.read_end(CONSOLE_LOG, size).lstrip(b"\0")
    except FileNotFoundError:
        return b""
