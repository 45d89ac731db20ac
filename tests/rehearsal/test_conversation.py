"""The conversation with one process that is under the filter, where its kernel is older than Linux 5.19."""

from __future__ import annotations

import os
import select
import signal
import socket
import sys

from sevlaunch.rehearsal.conversation import Conversation
from sevlaunch.rehearsal.kvm import Answer, EmulatedSev, Memory
from sevlaunch.rehearsal.platform import Platform
from sevlaunch.rehearsal.processor import SecureProcessor
from sevlaunch.rehearsal.requests import KVM_MEMORY_ENCRYPT_OP, SEV_REQUESTS
from tests.conftest import ROOT

PLATFORM = Platform.generate()

# Makes the same ioctl twice, as QEMU may; its handler lets the kernel make an interrupted one again, and tells of it at
# once, when the ioctl has not returned yet. Exits with what both return.
CALLER = f"""
import ctypes, os, signal, socket, sys
from sevlaunch.rehearsal import seccomp

channel, told = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])
signal.alarm(120)
os.set_blocking(told, False)
signal.set_wakeup_fd(told)
signal.signal(signal.SIGUSR1, lambda number, frame: None)
signal.siginterrupt(signal.SIGUSR1, False)
# As before Linux 5.19: any signal interrupts a caller that waits for its answer.
seccomp._FLAG_WAIT_KILLABLE = 0
listener = seccomp.install(seccomp.build_filter({SEV_REQUESTS!r}))
socket.send_fds(channel, [b"x"], [listener])
os.close(listener)
ioctl = ctypes.CDLL(None).ioctl
first = ioctl(0, ctypes.c_ulong({KVM_MEMORY_ENCRYPT_OP}), ctypes.c_void_p(4096))
second = ioctl(0, ctypes.c_ulong({KVM_MEMORY_ENCRYPT_OP}), ctypes.c_void_p(4096))
os._exit(10 * first + second)
"""


class Counting(EmulatedSev):
    """Answers with how often it was asked; the first caller is interrupted before it hears the answer."""

    def __init__(self, told: int) -> None:
        super().__init__(SecureProcessor(PLATFORM))
        self.pid = 0
        self.asked = 0
        self._told = told

    def ioctl(self, memory: Memory, fd: int, request: int, argument: int) -> Answer:
        self.asked += 1
        if self.asked == 1:
            os.kill(self.pid, signal.SIGUSR1)
            ready, _, _ = select.select([self._told], [], [], 30)
            assert ready, "the caller was not interrupted within 30 s"
        return Answer(self.asked)


def test_an_ioctl_that_the_kernel_makes_again_is_done_once() -> None:
    ours, theirs = socket.socketpair()
    told, teller = os.pipe()
    wakeup, unused = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    for fd in (theirs.fileno(), teller):
        os.set_inheritable(fd, True)
    emulated = Counting(told)
    argv = [sys.executable, "-c", CALLER, str(theirs.fileno()), str(teller)]
    emulated.pid = os.posix_spawn(sys.executable, argv, {**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        theirs.close()
        status = Conversation(emulated.pid, emulated, ours, None, wakeup).hold()
    finally:
        ours.close()
        for fd in (told, teller, wakeup, unused):
            os.close(fd)
    # The first ioctl gets the first answer at its repetition; the second is a new one.
    assert os.waitstatus_to_exitcode(status) == 12
    assert emulated.asked == 2
