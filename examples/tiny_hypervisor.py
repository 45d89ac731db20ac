"""A hypervisor tool of one's own on sevlaunch: a pool of guests with a health check, in well under 80 lines.

python examples/tiny_hypervisor.py profiles/plain.yaml --guests 3 --seconds 5
"""

from __future__ import annotations

import argparse
import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sevlaunch.api import Guest, Host, Process, Profile, SevlaunchError, launch, plan, spawn

STATES: Counter[str] = Counter()


def nice_spawn(argv: Sequence[str], *, log: int, **options: Any) -> Process:
    """Start QEMU as this tool wants it: here with a lower priority; a cgroup or a namespace goes the same way."""
    return spawn(["nice", "-n", "5", *argv], log=log, **options)


async def watch(guest: Guest) -> None:
    """Count what happens to a guest."""
    async for event in guest.events():
        STATES[event["event"]] += 1


async def serve(profile: Path, number: int, host: Host, stop: asyncio.Event) -> None:
    """Keep one guest of the pool alive until the tool stops: one that ends is started anew."""
    name = f"pool-{number}"
    made = plan(Profile.load(profile, overrides=["memory=64M"], name=name), host)
    while not stop.is_set():
        async with launch(made, spawner=nice_spawn) as guest:
            print(f"{guest.name}: pid {guest.pid}, {await guest.state()}", flush=True)
            watching = asyncio.create_task(watch(guest))
            ending = asyncio.create_task(guest.wait())
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait([ending, stopping], return_when=asyncio.FIRST_COMPLETED)
            for task in (watching, ending, stopping):
                task.cancel()
        print(f"{name}: ended", flush=True)


async def pool(profile: Path, guests: int, seconds: float) -> None:
    """Run the pool for a while."""
    host, stop = Host.probe(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for number in range(1, guests + 1):
            group.create_task(serve(profile, number, host, stop))
        await asyncio.sleep(seconds)
        stop.set()
    print(f"events: {dict(STATES)}")


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("profile", type=Path)
    parser.add_argument("--guests", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5)
    options = parser.parse_args()
    try:
        asyncio.run(pool(options.profile, options.guests, options.seconds))
    except* SevlaunchError as group:
        for error in group.exceptions:
            print(f"tiny_hypervisor: {error}")


if __name__ == "__main__":
    main()
