"""One register of one system call, by ptrace(2): QEMU's KVM_CREATE_VM gets an ordinary VM.

QEMU asks for a VM type that an ordinary KVM does not have. A VM belongs to the process that creates it, so nobody can
create it in QEMU's place: the type in the third argument has to change. Afterwards nothing is traced any more.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from errno import EINTR

# linux/ptrace.h
_TRACEME = 0
_PEEKUSER = 3
_POKEUSER = 6
_CONT = 7
_DETACH = 17
_SYSCALL = 24
_SETOPTIONS = 0x4200
_OPTIONS = 0x01 | 0x80 | 0x00100000  # TRACESYSGOOD, TRACESECCOMP, EXITKILL
_EVENT_SECCOMP = 7
_SYSCALL_STOP = signal.SIGTRAP | 0x80

# struct user_regs_struct, x86-64: offsets of rax, rdx.
_RAX, _RDX = 10 * 8, 12 * 8


def ask_to_be_traced() -> None:
    """In the child, before the filter: let the parent trace this process. Stops until the parent goes on.

    :raise OSError: when tracing is not allowed here.
    """
    _ptrace(_TRACEME, 0, 0, 0)
    os.kill(os.getpid(), signal.SIGSTOP)


class Tracer:
    """The parent's side, until the VM is there. All calls in the thread that forked the child."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._begun = False
        self._creating = False
        self.done = False
        self.status: int | None = None

    def step(self) -> None:
        """Handle what the child has stopped for; when it ended, ``status`` is set."""
        while not self.done:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid == 0:
                return
            if os.WIFSTOPPED(status):
                self._stopped(status)
            else:
                self.done, self.status = True, status

    def _stopped(self, status: int) -> None:
        stop, event = os.WSTOPSIG(status), status >> 16
        if not self._begun:
            # Its own SIGSTOP.
            _ptrace(_SETOPTIONS, self._pid, 0, _OPTIONS)
            self._begun = True
            _ptrace(_CONT, self._pid, 0, 0)
        elif event == _EVENT_SECCOMP:
            _ptrace(_POKEUSER, self._pid, _RDX, 0)
            self._creating = True
            _ptrace(_SYSCALL, self._pid, 0, 0)
        elif stop == _SYSCALL_STOP and self._creating:
            self._created()
        else:
            # A signal of its own; SIGTRAP is what execve sends to a traced process.
            _ptrace(_CONT, self._pid, 0, 0 if stop == signal.SIGTRAP else stop)

    def _created(self) -> None:
        self._creating = False
        # QEMU repeats a KVM_CREATE_VM that was interrupted; detached too early, it would get ENOSYS.
        if _register(self._pid, _RAX) == -EINTR:
            _ptrace(_CONT, self._pid, 0, 0)
        else:
            _ptrace(_DETACH, self._pid, 0, 0)
            self.done = True


def _register(pid: int, offset: int) -> int:
    (value,) = struct.unpack("<q", struct.pack("<Q", _ptrace(_PEEKUSER, pid, offset, 0) & (1 << 64) - 1))
    return int(value)


def _ptrace(request: int, pid: int, address: int, data: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.restype = ctypes.c_long
    ctypes.set_errno(0)
    result = libc.ptrace(ctypes.c_long(request), ctypes.c_int(pid), ctypes.c_void_p(address), ctypes.c_void_p(data))
    if result == -1 and ctypes.get_errno():
        raise OSError(ctypes.get_errno(), f"ptrace: {os.strerror(ctypes.get_errno())}")
    return int(result)
