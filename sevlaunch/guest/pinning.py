"""Which CPUs of the host a guest's vCPUs run on: set from outside, QEMU's sandbox keeps it from that."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sevlaunch.errors import HostError, QmpError
from sevlaunch.units import format_ranges

if TYPE_CHECKING:
    from sevlaunch.guest.monitor import Qmp


async def pin(qmp: Qmp, pid: int, pins: Sequence[frozenset[int]]) -> None:
    """Let each vCPU run on the CPUs of its entry alone.

    :param pid: of QEMU; only its own threads are touched, whatever it answers.
    :raise QmpError: when QEMU does not tell its threads.
    :raise HostError: when the kernel does not let them there.
    """
    threads = _threads(await qmp.execute("query-cpus-fast"), pid)
    for index, cpus in enumerate(pins):
        if index not in threads:
            raise QmpError(f"QEMU does not tell the thread of vCPU {index}")
        try:
            os.sched_setaffinity(threads[index], cpus)
        except OSError as error:
            raise HostError(
                f"vCPU {index} can't be kept on CPU {format_ranges(cpus)}: {error.strerror}",
                hint="the CPUs that may be used: taskset -p $$, and cpuset.cpus.effective of the cgroup",
            ) from error


def _threads(answer: object, pid: int) -> dict[int, int]:
    """The thread of each vCPU, as far as it is one of QEMU's."""
    found: dict[int, int] = {}
    for one in answer if isinstance(answer, list) else ():
        index, thread = (one.get(key) if isinstance(one, dict) else None for key in ("cpu-index", "thread-id"))
        if isinstance(index, int) and isinstance(thread, int) and Path(f"/proc/{pid}/task/{thread}").exists():
            found[index] = thread
    return found
