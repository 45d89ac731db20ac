"""A program under a filter that fails one of its system calls, as a container's does."""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Sequence

# linux/io_uring.h, linux/aio_abi.h: numbers of system calls on x86-64.
IO_URING_SETUP, IO_SETUP = 425, 206
# linux/prctl.h, linux/seccomp.h
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 22, 38, 2
RET_ERRNO, RET_ALLOW = 0x50000, 0x7FFF0000
# linux/bpf_common.h: load a word, jump if equal, return.
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06


def filtered(call: int, error: int, command: Sequence[str]) -> list[str]:
    """The command, whose system call ``call`` fails with ``error``."""
    return [sys.executable, __file__, str(call), str(error), *command]


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def main() -> None:
    """Put this process under the filter and become the program."""
    call, error = int(sys.argv[1]), int(sys.argv[2])
    steps = [(LOAD, 0, 0, 0), (EQUAL, 0, 1, call), (RETURN, 0, 0, RET_ERRNO | error), (RETURN, 0, 0, RET_ALLOW)]
    content = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *step) for step in steps))
    libc = ctypes.CDLL(None, use_errno=True)
    program = _Program(len(steps), ctypes.addressof(content))
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
        PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program)
    ):
        raise OSError(ctypes.get_errno(), "no filter of system calls can be had")
    os.execv(sys.argv[3], sys.argv[3:])


if __name__ == "__main__":
    main()
