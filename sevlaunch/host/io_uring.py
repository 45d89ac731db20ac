"""Whether this process may use io_uring: a kernel, an administrator or a container can keep it from a process.

What a QEMU does then depends on its version: some refuse the disk, 10.0 says nothing and uses threads.
"""

from __future__ import annotations

import errno

from msgspec.structs import replace

from sevlaunch.host.facts import IoUringFacts
from sevlaunch.host.system import System

# The kernel's Documentation/admin-guide/sysctl/kernel.rst; since Linux 6.6.
_DISABLED = "/proc/sys/kernel/io_uring_disabled"


def io_uring_facts(system: System) -> IoUringFacts:
    """What the kernel answers to a process of this user's that asks for a ring."""
    disabled = system.number(_DISABLED)
    facts = IoUringFacts(usable=True, disabled=disabled)
    try:
        system.io_uring_setup()
    except OSError as error:
        return replace(facts, usable=False, error=_reason(error, facts))
    return facts


def _reason(error: OSError, facts: IoUringFacts) -> str:
    if error.errno == errno.ENOSYS:
        return "this kernel has none, or a filter of system calls hides it"
    if error.errno != errno.EPERM:
        return error.strerror or str(error)
    if facts.is_for_a_group:
        return "kernel.io_uring_disabled is 1, and this user is not in the group of kernel.io_uring_group"
    if facts.disabled:
        return f"kernel.io_uring_disabled is {facts.disabled}"
    return "a filter of system calls, such as a container's, forbids it"
