"""The conversation with one process that is under the filter, also where the kernel is older than Linux 5.19."""

from __future__ import annotations

import ctypes
import mmap
import os
import select
import signal
import socket
import sys

import pytest

from sevlaunch.rehearsal.conversation import Conversation, ProcessMemory
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


def talk(emulated: Counting, program: str, *descriptors: int) -> int:
    """The exit code of a Python program that gets the channel's and these file descriptors, and is answered."""
    ours, theirs = socket.socketpair()
    wakeup, unused = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    passed = (theirs.fileno(), *descriptors)
    for fd in passed:
        os.set_inheritable(fd, True)
    argv = [sys.executable, "-c", program, *map(str, passed)]
    emulated.pid = os.posix_spawn(sys.executable, argv, {**os.environ, "PYTHONPATH": str(ROOT)})
    with ours:
        theirs.close()
        status = Conversation(emulated.pid, emulated, ours, None, wakeup).hold()
    for fd in (wakeup, unused):
        os.close(fd)
    return os.waitstatus_to_exitcode(status)


def test_an_ioctl_that_the_kernel_makes_again_is_done_once() -> None:
    told, teller = os.pipe()
    emulated = Counting(told)
    try:
        # The first ioctl gets the first answer at its repetition; the second is a new one.
        assert talk(emulated, CALLER, teller) == 12
    finally:
        os.close(told)
        os.close(teller)
    assert emulated.asked == 2


def test_a_process_that_ends_without_its_filter_ends_the_conversation() -> None:
    assert talk(Counting(-1), "raise SystemExit(3)") == 3


def test_memory_that_ends_before_is_a_fault_and_no_short_answer() -> None:
    pages = mmap.mmap(-1, 2 * mmap.PAGESIZE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(pages))
    end = start + mmap.PAGESIZE
    memory = ProcessMemory(os.getpid())
    assert memory.read(end - 8, 16) == bytes(16)
    # The second page goes; Python only knows of both.
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.munmap(ctypes.c_void_p(end), ctypes.c_size_t(mmap.PAGESIZE)) == 0
    memory.write(end - 8, b"12345678")
    assert memory.read(end - 8, 8) == b"12345678"
    for reach in (lambda: memory.read(end - 8, 16), lambda: memory.write(end - 8, bytes(16))):
        with pytest.raises(OSError, match="memory ends before"):
            reach()
