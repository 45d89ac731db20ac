"""Who lives in a guest's folder: what its locks say, and for which process its record is believed.

A held ``lock`` whose launch never finished, while no command is starting the guest, is what a killed launcher leaves
behind; the next start of the name clears it away. A QEMU that has the lock file open and no lock on it was started by
the script of `render`, or somebody has put another file in the place of its lock: it is left alone.
"""

from __future__ import annotations

import contextlib
import os

from sevlaunch.errors import GuestNotFound, UnsafeFile
from sevlaunch.guest.folder import EVIDENCE, LAUNCHER, LOCK, RECORD, GuestFolder
from sevlaunch.guest.holder import find_holder, find_holder_of_deleted, holds, is_run
from sevlaunch.guest.locks import REMOVING, STARTING, WHOLE
from sevlaunch.guest.process import Process, process_start_time
from sevlaunch.plan.places import COMMANDS_SOCKET, QEMU_FOLDER


def is_alive(folder: GuestFolder) -> bool:
    """Whether QEMU lives, or is just being started."""
    return is_locked(folder) or qemu_pid(folder) is not None


def is_starting(folder: GuestFolder) -> bool:
    """Whether a command is starting the guest at this moment."""
    return folder.lock_of(LAUNCHER, REMOVING) == STARTING


def launch_never_finished(folder: GuestFolder) -> bool:
    """Whether what is there is the beginning of a start: nothing has been written that a launch shows in its end."""
    record = folder.record()
    if record is not None:
        return not record.launched
    try:
        with folder.opened() as opened:
            # A record that is damaged says nothing.
            return not opened.has(RECORD) and not opened.has(EVIDENCE)
    except GuestNotFound:
        return True


def qemu_pid(folder: GuestFolder) -> int | None:
    """The PID of the QEMU that has the lock file open, however it was started.

    The record is believed only for a process that has it: a damaged one is no reason to touch another.
    """
    try:
        with folder.opened() as opened:
            lock, user, has_socket = opened.identity(LOCK), opened.owner, False
            with contextlib.suppress(FileNotFoundError, UnsafeFile), opened.folder(QEMU_FOLDER) as inner:
                user, has_socket = inner.owner, inner.has(COMMANDS_SOCKET)
    except GuestNotFound:
        return None
    record = folder.record()
    if record and process_start_time(record.pid) == record.start_time:
        argument = os.fsencode(folder.file(QEMU_FOLDER) / COMMANDS_SOCKET)
        if holds(record.pid, {record.lock, lock or record.lock}, user=user, argument=argument):
            return record.pid
    # All processes are looked at: not for each guest that has ended.
    if lock is None:
        return find_holder_of_deleted(folder.file(LOCK)) if has_socket else None
    return find_holder(lock) if has_socket or is_locked(folder) else None


def companions(folder: GuestFolder) -> list[Process]:
    """The processes beside QEMU that still live. The record is believed for those that are of this guest alone."""
    record = folder.record()
    found = [Process.attach(one.pid, one.start_time) for one in record.companions] if record else []
    return [process for process in found if process and _is_of(process, folder)]


def _is_of(process: Process, folder: GuestFolder) -> bool:
    # passt closes what it has inherited: it has no lock to be known by.
    with folder.opened() as opened:
        identity = opened.status(QEMU_FOLDER) if opened.has(QEMU_FOLDER) else os.fstat(opened.fd)
    if is_run(process.pid, user=identity.st_uid, argument=os.fsencode(folder.path) + b"/"):
        return True
    process.close()
    return False


def is_locked(folder: GuestFolder) -> bool:
    """Whether some process holds the guest's lock."""
    return folder.lock_of(LOCK, WHOLE) is not None
