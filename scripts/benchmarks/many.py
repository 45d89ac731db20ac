"""Many guests from one process, beside the same number of bare QEMUs as parallel."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager
from functools import partial

from benchmarks.measuring import PLAIN, Candidate, Line, Result, Setting, Target, alternate, summarise
from benchmarks.starts import BareQemu
from sevlaunch.guest.many import launch_many
from sevlaunch.host.model import Host
from sevlaunch.plan.plan import Plan
from sevlaunch.plan.resolve import resolve
from sevlaunch.profile.loader import load

NUMBERS = (1, 10, 50)


def plans(setting: Setting, count: int) -> list[Plan]:
    """Small guests with names of their own."""
    host = Host.probe(setting.qemu)
    # A firmware in one file: variable stores are no part of a launch.
    overrides = ["accel=tcg", "memory.size=64M", "memory.lock=false", "cpus=1", "networks=[]"]
    overrides.append(f"firmware={{image: {setting.firmware}}}")
    return [resolve(load(PLAIN, overrides=overrides, name=f"many-{number}"), host) for number in range(count)]


@contextmanager
def bare_many(wanted: Sequence[Plan]) -> Iterator[None]:
    """As many bare QEMUs, started at the same time, each waited for in a thread."""
    started: list[BareQemu] = []

    def run(plan: Plan) -> None:
        qemu = BareQemu(plan)
        started.append(qemu)
        qemu.wait_until_ready()

    try:
        with ThreadPoolExecutor(len(wanted)) as pool:
            list(pool.map(run, wanted))
        yield
    finally:
        for qemu in started:
            qemu.end()


@contextmanager
def launched_many(wanted: Sequence[Plan]) -> Iterator[None]:
    """The same through sevlaunch's library."""
    stack = AsyncExitStack()
    with asyncio.Runner() as runner:

        async def enter() -> None:
            for outcome in await stack.enter_async_context(launch_many(wanted, paused=True)):
                if outcome.error:
                    raise outcome.error

        runner.run(enter())
        try:
            yield
        finally:
            runner.run(stack.aclose())


def many(setting: Setting) -> Result:
    """1, 10 and 50 guests."""
    lines: list[Line] = []
    for number in NUMBERS:
        wanted = plans(setting, number)
        names = (f"{number} bare", f"{number} guests")
        candidates: dict[str, Candidate] = {
            names[0]: partial(bare_many, wanted),
            names[1]: partial(launched_many, wanted),
        }
        targets = {names[1]: [Target(names[0], ratio=1.15)]} if number == max(NUMBERS) else {}
        lines += summarise(alternate(candidates, max(3, setting.rounds // 3)), targets)
    return Result(tuple(lines))
