"""vCPUs are kept on the CPUs that the profile lists, before the guest's first instruction."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any, cast

import pytest

from sevlaunch.errors import HostError, QmpError
from sevlaunch.guest.monitor import Qmp
from sevlaunch.guest.pinning import pin
from tests.conftest import Command
from tests.guest.support import JSON, PLAIN, with_qemu


def vcpu_threads(pid: int) -> dict[str, set[int]]:
    """The CPUs that each vCPU's thread may run on, by the name that QEMU gives it."""
    names = {int(task.name): (task / "comm").read_text().strip() for task in Path(f"/proc/{pid}/task").iterdir()}
    return {name: os.sched_getaffinity(thread) for thread, name in names.items() if name.startswith("CPU ")}


def test_each_vcpu_runs_where_its_entry_says_and_qemu_itself_anywhere(qemu_binary: str, sevlaunch: Command) -> None:
    allowed = sorted(os.sched_getaffinity(0))
    cpus = [allowed[-1], allowed[0]]
    options = ("--set", f"cpu={{count: 2, pin: {cpus}}}", "--set", "accel=tcg", *with_qemu(qemu_binary))
    pid = sevlaunch("up", PLAIN, "--paused", *options, *JSON).json["pid"]
    found = vcpu_threads(pid)
    assert [found[f"CPU {index}/TCG"] for index in (0, 1)] == [{cpus[0]}, {cpus[1]}]
    assert os.sched_getaffinity(pid) == set(allowed)


class Answers:
    """Stands in for a QMP session: gives one answer."""

    def __init__(self, answer: object) -> None:
        self.answer = answer

    async def execute(self, command: str) -> Any:
        """The answer."""
        return self.answer


@pytest.mark.parametrize(
    "answer",
    [
        [{"cpu-index": 0, "thread-id": 1}],
        [{"cpu-index": 0, "thread-id": "../1"}],
        [{"cpu-index": 1, "thread-id": os.getpid()}],
        ["thread"],
        {"return": 7},
        None,
    ],
)
def test_no_thread_but_qemus_own_is_touched(answer: object) -> None:
    before = os.sched_getaffinity(0)
    with pytest.raises(QmpError, match="does not tell the thread of vCPU 0"):
        asyncio.run(pin(cast(Qmp, Answers(answer)), os.getpid(), [frozenset(before)]))
    assert os.sched_getaffinity(0) == before


def test_a_cpu_that_the_kernel_does_not_lend_is_said() -> None:
    answer = [{"cpu-index": 0, "thread-id": os.getpid()}]
    with pytest.raises(HostError, match="vCPU 0 can't be kept on CPU 1023: Invalid argument"):
        asyncio.run(pin(cast(Qmp, Answers(answer)), os.getpid(), [frozenset({1023})]))
