"""The process beside a rehearsed QEMU: its parent, which answers for the secure processor until QEMU ends."""

from __future__ import annotations

import json
import os
import select
import socket
from collections.abc import Sequence
from pathlib import Path

from sevlaunch.rehearsal.kvm import REQUESTS, Answer, EmulatedSev
from sevlaunch.rehearsal.platform import user_platform
from sevlaunch.rehearsal.processor import SecureProcessor
from sevlaunch.rehearsal.seccomp import Listener, Notification, build_filter, install

EXIT_CANNOT_START = 127


class ProcessMemory:
    """Another process' memory, through /proc/PID/mem; a parent may read and write its child's."""

    def __init__(self, pid: int) -> None:
        self._fd = os.open(f"/proc/{pid}/mem", os.O_RDWR | os.O_CLOEXEC)

    def read(self, address: int, size: int) -> bytes:
        """:raise OSError: when it is not all there."""
        content = os.pread(self._fd, size, address)
        if len(content) != size:
            raise OSError("memory ends before")
        return content

    def write(self, address: int, content: bytes) -> None:
        """:raise OSError: when it can't be written."""
        if os.pwrite(self._fd, content, address) != len(content):
            raise OSError("memory ends before")


def serve(argv: Sequence[str], inherit: Sequence[int], report: int, state_folder: Path) -> int:
    """Start QEMU under the filter, answer until it ends; its exit code, 128 + N for signal N.

    :param inherit: file descriptors that QEMU keeps.
    :param report: file descriptor that QEMU's PID is written to as text.
    """
    emulated = EmulatedSev(SecureProcessor(user_platform(state_folder)))
    # QEMU is to keep what it was given, and nothing of this process.
    for fd in (report, *inherit):
        os.set_inheritable(fd, False)
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        _become(argv, inherit, theirs)
    theirs.close()
    for fd in inherit:
        os.close(fd)
    with os.fdopen(report, "w") as stream:
        stream.write(str(pid))
    pidfd = os.pidfd_open(pid)
    _, received, _, _ = socket.recv_fds(ours, 1, 1)
    if received:
        _answer_until_end(Listener(received[0]), pidfd, pid, emulated)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _become(argv: Sequence[str], inherit: Sequence[int], channel: socket.socket) -> None:
    """In the child: install the filter, hand over the listener, become QEMU."""
    try:
        listener = install(build_filter(REQUESTS))
        socket.send_fds(channel, [b"x"], [listener])
        os.close(listener)
        for fd in inherit:
            os.set_inheritable(fd, True)
        os.execv(argv[0], list(argv))
    except OSError as error:
        os.write(2, f"sevlaunch rehearsal: can't start {argv[0]}: {error}\n".encode())
    finally:
        os._exit(EXIT_CANNOT_START)


def _answer_until_end(listener: Listener, pidfd: int, pid: int, emulated: EmulatedSev) -> None:
    memory: ProcessMemory | None = None
    # Before Linux 5.19 a signal can interrupt a caller that we answer at this moment: the kernel then makes the same
    # ioctl again, and what it did must not be done twice.
    unheard: tuple[Notification, Answer] | None = None
    poll = select.poll()
    poll.register(listener.fd, select.POLLIN)
    poll.register(pidfd, select.POLLIN)
    while True:
        events = dict(poll.poll())
        if events.get(listener.fd, 0) & select.POLLIN:
            notification = listener.receive()
            if notification is not None:
                # Opened at the first ioctl: before exec, it would be the memory of this program.
                memory = memory or ProcessMemory(pid)
                if unheard and unheard[0].repeats(notification):
                    answer = unheard[1]
                else:
                    fd, request, argument = notification.args[:3]
                    answer = emulated.ioctl(memory, fd & 0xFFFFFFFF, request & 0xFFFFFFFF, argument)
                if answer.let_pass:
                    heard = listener.let_pass(notification)
                else:
                    heard = listener.answer(notification, -1 if answer.error else 0, answer.error)
                unheard = None if heard else (notification, answer)
        elif events:
            return


def main(request_file: str) -> int:
    """Serve what the launcher wrote into ``request_file``: argv, inherit, report, state_folder."""
    request = json.loads(Path(request_file).read_bytes())
    return serve(request["argv"], request["inherit"], request["report"], Path(request["state_folder"]))
