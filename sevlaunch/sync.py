"""The library without asyncio, for scripts::

    with launch(plan(Profile.load("guest.yaml"), Host.probe())) as guest:
        guest.console.expect("login:")

Each block runs an event loop in a thread of its own; what :mod:`sevlaunch.api` says of a method holds here, too.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sevlaunch import api
from sevlaunch.api import Evidence, Host, Plan, Profile, SevInfo, Spawner, plan, render, spawn
from sevlaunch.guest.ending import POWERDOWN_LIMIT
from sevlaunch.guest.serial import EXPECT_LIMIT

__all__ = ["Console", "Guest", "Host", "Plan", "Profile", "attach", "launch", "plan", "render"]

T = TypeVar("T")


class _Loop:
    """An event loop in its own thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="sevlaunch", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of ``work``; an interruption of this thread cancels it first."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            if not future.done():
                self._loop.call_soon_threadsafe(future.cancel)
            raise

    def close(self) -> None:
        """End the thread."""
        self.run(self._loop.shutdown_asyncgens())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Console:
    """:class:`sevlaunch.api.Console`."""

    def __init__(self, loop: _Loop, console: api.Console) -> None:
        self._loop = loop
        self._console = console

    def read(self) -> bytes:
        """What came since the last read or match."""
        return self._loop.run(self._console.read())

    def expect(self, pattern: str | re.Pattern[bytes], *, limit: float = EXPECT_LIMIT) -> re.Match[bytes]:
        """Wait until the guest prints ``pattern``."""
        return self._loop.run(self._console.expect(pattern, limit=limit))

    def send(self, text: str | bytes) -> None:
        """Type ``text``."""
        self._loop.run(self._console.send(text))


class Guest:
    """:class:`sevlaunch.api.Guest`; ``detach`` is for one that this program launched."""

    def __init__(self, loop: _Loop, guest: api.Guest) -> None:
        self._loop = loop
        self._guest = guest
        self.name = guest.name
        self.pid = guest.pid
        self.folder = guest.folder
        self.console = Console(loop, guest.console)

    def qmp(self, command: str, **arguments: Any) -> Any:
        """What QEMU returns for a QMP command."""
        return self._loop.run(self._guest.qmp(command, **arguments))

    def events(self) -> Iterator[dict[str, Any]]:
        """QMP's events from this call on, until QEMU is gone."""

        async def listen() -> AsyncIterator[dict[str, Any]]:
            return self._guest.events()

        return self._iterate(self._loop.run(listen()))

    def _iterate(self, events: AsyncIterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        async def following() -> dict[str, Any] | None:
            return await anext(events, None)

        while (event := self._loop.run(following())) is not None:
            yield event

    def state(self) -> str:
        """QEMU's run state."""
        return self._loop.run(self._guest.state())

    def sev_info(self) -> SevInfo:
        """What QEMU says of SEV in this guest."""
        return self._loop.run(self._guest.sev_info())

    def launch_measurement(self) -> str | None:
        """The launch measurement in base64."""
        return self._loop.run(self._guest.launch_measurement())

    def evidence(self) -> Evidence:
        """What the launch showed, with the state of now."""
        return self._loop.run(self._guest.evidence())

    def inject_secret(self, header: str, payload: str, *, gpa: int | None = None) -> None:
        """Hand the owner's secret to the secure processor."""
        self._loop.run(self._guest.inject_secret(header, payload, gpa=gpa))

    def resume(self) -> None:
        """Let it run."""
        self._loop.run(self._guest.resume())

    def pause(self) -> None:
        """Stop its vCPUs."""
        self._loop.run(self._guest.pause())

    def powerdown(self, *, limit: float = POWERDOWN_LIMIT) -> bool:
        """Press the power button until the guest's system powers down."""
        return self._loop.run(self._guest.powerdown(limit=limit))

    def wait(self) -> None:
        """Wait until QEMU ends."""
        self._loop.run(self._guest.wait())

    def detach(self) -> None:
        """Let it live on after the block.

        :raise UsageError: for a guest that was not launched here: that one does so anyway.
        """
        if not isinstance(self._guest, api.LaunchedGuest):
            raise api.UsageError(f"{self.name} was attached to, not launched", hint="just leave the block")
        guest = self._guest

        async def let_go() -> None:
            guest.detach()

        self._loop.run(let_go())


@contextmanager
def launch(
    plan: Plan,
    *,
    paused: bool = False,
    limit: float | None = None,
    spawner: Spawner = spawn,
    extra_args: Sequence[str] = (),
    inherit: Sequence[int] = (),
) -> Iterator[Guest]:
    """:func:`sevlaunch.api.launch`."""
    launched = api.launch(plan, paused=paused, limit=limit, spawner=spawner, extra_args=extra_args, inherit=inherit)
    with _entered(launched) as guest:
        yield guest


@contextmanager
def attach(name: str, *, root: Path | None = None) -> Iterator[Guest]:
    """:meth:`sevlaunch.api.Guest.attach`."""
    with _entered(api.Guest.attach(name, root=root)) as guest:
        yield guest


@contextmanager
def _entered(block: AbstractAsyncContextManager[api.Guest]) -> Iterator[Guest]:
    loop = _Loop()
    try:
        guest = loop.run(_enter(block))
        try:
            yield Guest(loop, guest)
        finally:
            loop.run(_leave(block))
    finally:
        loop.close()


async def _enter(block: AbstractAsyncContextManager[T]) -> T:
    return await block.__aenter__()


async def _leave(block: AbstractAsyncContextManager[Any]) -> None:
    await block.__aexit__(None, None, None)
