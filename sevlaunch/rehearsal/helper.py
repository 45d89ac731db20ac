"""The process beside a rehearsed QEMU: its parent, which answers for the secure processor until QEMU ends.

It starts QEMU first, and reads the rest of the program while QEMU starts.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from typing import Any

from sevlaunch.guest_type import GuestType
from sevlaunch.rehearsal.requests import KVM_CREATE_VM, SEV_REQUESTS, SNP_REQUESTS
from sevlaunch.rehearsal.seccomp import build_filter, install

EXIT_CANNOT_START = 127


def main(request_file: str) -> int:
    """Start QEMU under the filter, answer until it ends; its exit code, 128 + N for signal N.

    :param request_file: JSON that the launcher wrote into the guest's runtime folder: ``argv``; ``inherit``, file
        descriptors that QEMU keeps; ``report``, one that its PID is written to as text; ``state_folder``; ``kind``, the
        guest's type; ``init2``, whether to offer KVM_SEV_INIT2.
    """
    with open(request_file, "rb") as file:  # noqa: PTH123 - pathlib takes as long to import as all the rest here
        request = json.load(file)
    # QEMU is to keep what it was given, and nothing of this process.
    for fd in (request["report"], *request["inherit"]):
        os.set_inheritable(fd, False)
    # A kernel with KVM_SEV_INIT2 has VM types, and QEMU then asks for one that is not here.
    traced = request["init2"]
    wakeup = _wake_when_a_child_stops()
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        _become(request, theirs, traced)
    theirs.close()
    for fd in request["inherit"]:
        os.close(fd)
    with os.fdopen(request["report"], "w") as stream:
        stream.write(str(pid))
    status = _answer(request, os.path.dirname(request_file), pid, ours, wakeup, traced)  # noqa: PTH120
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _answer(request: dict[str, Any], folder: str, pid: int, channel: socket.socket, wakeup: int, traced: bool) -> int:
    from pathlib import Path

    from sevlaunch.errors import SevlaunchError
    from sevlaunch.rehearsal.conversation import Conversation, emulate
    from sevlaunch.rehearsal.tracing import Tracer

    try:
        state_folder = Path(request["state_folder"])
        emulated = emulate(request["kind"], init2=request["init2"], state_folder=state_folder, folder=Path(folder))
        return Conversation(pid, emulated, channel, Tracer(pid) if traced else None, wakeup).hold()
    except SevlaunchError as error:
        # The launcher shows it as the end of QEMU's output.
        print(error, file=sys.stderr, flush=True)
        os.kill(pid, signal.SIGKILL)
        return EXIT_CANNOT_START << 8


def _wake_when_a_child_stops() -> int:
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    return reader


def _become(request: dict[str, Any], channel: socket.socket, traced: bool) -> None:
    """In the child: install the filter, hand over the listener, become QEMU."""
    argv = request["argv"]
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if traced:
            from sevlaunch.rehearsal.tracing import ask_to_be_traced

            ask_to_be_traced()
        requests = SNP_REQUESTS if request["kind"] == GuestType.SEV_SNP else SEV_REQUESTS
        listener = install(build_filter(requests, (KVM_CREATE_VM,) if traced else ()))
        socket.send_fds(channel, [b"x"], [listener])
        os.close(listener)
        for fd in request["inherit"]:
            os.set_inheritable(fd, True)
        os.execv(argv[0], argv)
    except OSError as error:
        os.write(2, f"sevlaunch rehearsal: can't start {argv[0]}: {error}\n".encode())
    finally:
        os._exit(EXIT_CANNOT_START)
