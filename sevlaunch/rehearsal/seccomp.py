"""Interception of ioctls by seccomp user notification: seccomp_unotify(2), linux/seccomp.h, linux/audit.h.

The filter is installed by the child before it becomes QEMU; the parent answers. Only the listed requests leave the
kernel's fast path: KVM_RUN is not among them.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Sequence
from typing import NamedTuple

_SYS_SECCOMP = 317
_SYS_IOCTL = 16
_AUDIT_ARCH_X86_64 = 0xC000003E
_SET_MODE_FILTER = 1
_FLAG_NEW_LISTENER = 8
# Linux 5.19: once we have received an ioctl, only a fatal signal interrupts its caller.
_FLAG_WAIT_KILLABLE = 32
_RET_ALLOW = 0x7FFF0000
_RET_USER_NOTIF = 0x7FC00000
_RET_TRACE = 0x7FF00000
_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_SIGKILL = 9

_NOTIF_RECV = 0xC0502100
_NOTIF_SEND = 0xC0182101
_NOTIF_ADDFD = 0x40182103
_CONTINUE = 1
_ADDFD_SEND = 2

# struct sock_filter, linux/filter.h: code, jump if true, jump if false, k.
_INSTRUCTION = struct.Struct("<HBBI")
_LOAD_WORD = 0x20
_JUMP_EQUAL = 0x15
_RETURN = 0x06

# struct seccomp_data: nr i32, arch u32, instruction pointer u64, six arguments u64; the low half of args[1] is at 24.
_OFFSET_NR, _OFFSET_ARCH, _OFFSET_REQUEST = 0, 4, 24

# struct seccomp_notif: id, pid, flags, then struct seccomp_data.
_NOTIFICATION = struct.Struct("<QIIiIQ6Q")
# struct seccomp_notif_resp: id, val, error, flags.
_RESPONSE = struct.Struct("<QqiI")
# struct seccomp_notif_addfd: id, flags, srcfd, newfd, newfd_flags.
_ADDFD = struct.Struct("<QIIII")


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


class Notification(NamedTuple):
    """An ioctl that waits for an answer: ``args`` are fd, request, argument."""

    id: int
    thread: int
    args: tuple[int, ...]

    def repeats(self, other: Notification) -> bool:
        """Whether ``other`` is the same ioctl of the same thread, made again."""
        return (self.thread, self.args) == (other.thread, other.args)


def build_filter(requests: Sequence[int], traced: Sequence[int] = ()) -> bytes:
    """A BPF program that notifies of an ioctl with one of ``requests``, and allows everything else.

    :param traced: requests at which the process stops for its tracer instead.
    """
    count = len(requests) + len(traced)
    program = [
        (_LOAD_WORD, 0, 0, _OFFSET_ARCH),
        (_JUMP_EQUAL, 0, count + 3, _AUDIT_ARCH_X86_64),
        (_LOAD_WORD, 0, 0, _OFFSET_NR),
        (_JUMP_EQUAL, 0, count + 1, _SYS_IOCTL),
        (_LOAD_WORD, 0, 0, _OFFSET_REQUEST),
    ]
    # Jumps count from the next instruction; behind the comparisons stand ALLOW, USER_NOTIF and TRACE.
    for index, request in enumerate((*requests, *traced)):
        to_allow = count - index - 1
        program.append((_JUMP_EQUAL, to_allow + (1 if index < len(requests) else 2), 0, request))
    program += [(_RETURN, 0, 0, value) for value in (_RET_ALLOW, _RET_USER_NOTIF, _RET_TRACE)]
    return b"".join(_INSTRUCTION.pack(*instruction) for instruction in program)


def install(program: bytes) -> int:
    """Put this process under the filter, for good; the listener's file descriptor.

    The process also dies with its parent: without answers QEMU could not go on.

    :raise OSError: when the kernel does not allow it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    for option, value in ((_PR_SET_PDEATHSIG, _SIGKILL), (_PR_SET_NO_NEW_PRIVS, 1)):
        if libc.prctl(option, value, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")
    buffer = ctypes.create_string_buffer(program, len(program))
    fprog = _Program(len(program) // _INSTRUCTION.size, ctypes.addressof(buffer))
    for flags in (_FLAG_NEW_LISTENER | _FLAG_WAIT_KILLABLE, _FLAG_NEW_LISTENER):
        listener = libc.syscall(_SYS_SECCOMP, _SET_MODE_FILTER, flags, ctypes.byref(fprog))
        if listener >= 0 or ctypes.get_errno() != errno.EINVAL:
            break
    if listener < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(listener)


class Listener:
    """The end that answers."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def receive(self) -> Notification | None:
        """The next ioctl; None when its caller is gone already."""
        buffer = bytearray(_NOTIFICATION.size)
        try:
            fcntl.ioctl(self.fd, _NOTIF_RECV, buffer)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR):
                return None
            raise
        number, thread, _, _, _, _, *args = _NOTIFICATION.unpack(buffer)
        return Notification(number, thread, tuple(args))

    def answer(self, notification: Notification, value: int, error: int) -> bool:
        """Make the ioctl return ``value``, or fail with the errno ``error``; False if its caller waits no more."""
        return self._send(_RESPONSE.pack(notification.id, value, -error, 0))

    def answer_with_fd(self, notification: Notification, fd: int) -> bool:
        """Make the ioctl return a copy of ``fd``, opened in its caller; False if its caller waits no more.

        :raise OSError: when the kernel can't (before Linux 5.14).
        """
        request = _ADDFD.pack(notification.id, _ADDFD_SEND, fd, 0, os.O_CLOEXEC)
        return self._tell(_NOTIF_ADDFD, request)

    def let_pass(self, notification: Notification) -> bool:
        """Let the kernel do the ioctl; False if its caller waits no more."""
        return self._send(_RESPONSE.pack(notification.id, 0, 0, _CONTINUE))

    def _send(self, response: bytes) -> bool:
        return self._tell(_NOTIF_SEND, response)

    def _tell(self, request: int, argument: bytes) -> bool:
        try:
            fcntl.ioctl(self.fd, request, argument)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            return False
        return True
