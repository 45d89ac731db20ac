"""Whether a rehearsal is possible here: the one reason why not."""

from __future__ import annotations

import ctypes
import fcntl
import os
from pathlib import Path

from sevlaunch.errors import HostError
from sevlaunch.rehearsal.requests import KVM_CHECK_EXTENSION

_SYS_SECCOMP = 317
_GET_NOTIF_SIZES = 3
# KVM_SET_USER_MEMORY_REGION2, Linux 6.8: QEMU makes an SNP guest's memory with it.
_CAP_USER_MEMORY2 = 231
# Documentation/admin-guide/LSM/Yama.rst: at 3, nobody traces anybody.
_PTRACE_SCOPE = Path("/proc/sys/kernel/yama/ptrace_scope")
_NO_ATTACH = "3"


def check_available(*, traced: bool, snp: bool) -> None:
    """Make sure that ioctls can be intercepted here.

    :param traced: one of QEMU's system calls has to be changed, too (SNP, KVM_SEV_INIT2).
    :param snp: for an SNP guest.
    :raise HostError: with the one reason why not.
    """
    machine = os.uname().machine
    if machine != "x86_64":
        raise HostError(f"a rehearsal needs x86-64, found {machine}", hint="rehearse on an x86-64 machine")
    libc = ctypes.CDLL(None, use_errno=True)
    sizes = ctypes.create_string_buffer(6)
    if libc.syscall(_SYS_SECCOMP, _GET_NOTIF_SIZES, 0, sizes):
        raise HostError(
            f"a rehearsal needs seccomp user notification: {os.strerror(ctypes.get_errno())}",
            hint="use Linux 5.5 or newer; in a container, allow the system call seccomp",
        )
    if traced and _PTRACE_SCOPE.exists() and _PTRACE_SCOPE.read_text().strip() == _NO_ATTACH:
        raise HostError(
            f"this rehearsal needs ptrace, which {_PTRACE_SCOPE} forbids ({_NO_ATTACH})",
            hint="set kernel.yama.ptrace_scope to 2 or less; at 3 that takes a restart",
        )
    if snp and not _kvm_has(_CAP_USER_MEMORY2):
        raise HostError(
            f"a rehearsal of SEV-SNP needs KVM_SET_USER_MEMORY_REGION2, which Linux {os.uname().release} does not have",
            hint="use Linux 6.8 or newer, or rehearse sev-es",
        )


def _kvm_has(capability: int) -> bool:
    try:
        fd = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise HostError(f"can't open /dev/kvm: {error.strerror}", hint="see: sevlaunch host") from error
    try:
        return fcntl.ioctl(fd, KVM_CHECK_EXTENSION, capability) > 0
    finally:
        os.close(fd)
