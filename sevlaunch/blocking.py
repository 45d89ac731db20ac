"""What is asynchronous in :mod:`sevlaunch.api`, as :mod:`sevlaunch.sync` has it: each call blocks.

Each block, and each call outside of one, runs an event loop in a thread of its own.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, TypeVar

from sevlaunch import api
from sevlaunch.guest.ending import POWERDOWN_LIMIT
from sevlaunch.guest.monitor import PROGRAMS_TURN_LIMIT
from sevlaunch.guest.readiness import READY_LIMIT
from sevlaunch.guest.serial import EXPECT_LIMIT

T = TypeVar("T")


class _Loop:
    """An event loop in its own thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="sevlaunch", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of ``work``.

        An interruption of this thread cancels it, and is raised once it is undone; each further one cancels it again.
        """
        tasks: list[asyncio.Task[T]] = []
        ended = threading.Event()

        def begin() -> None:
            tasks.append(self._loop.create_task(work))
            tasks[0].add_done_callback(lambda _: ended.set())

        self._loop.call_soon_threadsafe(begin)
        interruption: BaseException | None = None
        while not ended.is_set():
            try:
                ended.wait()
            except BaseException as error:
                interruption = error
                self._loop.call_soon_threadsafe(lambda: tasks[0].cancel())
        if interruption:
            with suppress(BaseException):
                tasks[0].result()
            raise interruption
        return tasks[0].result()

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

    @property
    def log(self) -> Path:
        """The file with what the guest has printed."""
        return self._console.log

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

    def sev_info(self) -> api.SevInfo:
        """What QEMU says of SEV in this guest."""
        return self._loop.run(self._guest.sev_info())

    def launch_measurement(self) -> str | None:
        """The launch measurement in base64."""
        return self._loop.run(self._guest.launch_measurement())

    def evidence(self) -> api.Evidence:
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

    def ssh(self, *command: str, given: bytes = b"") -> api.ProgramEnd:
        """:meth:`sevlaunch.api.Guest.ssh`."""
        return self._loop.run(self._guest.ssh(*command, given=given))

    def wait_until_ready(self, condition: api.Condition, *, limit: float = READY_LIMIT) -> None:
        """Wait until ``condition`` is reached."""
        self._loop.run(api.wait_until_ready(self._guest, condition, limit=limit))

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


# What launch() gives is no other class here.
LaunchedGuest = Guest


@contextmanager
def launch(
    plan: api.Plan,
    *,
    paused: bool = False,
    limit: float | None = None,
    spawner: api.Spawner = api.spawn,
    extra_args: Sequence[str] = (),
    inherit: Sequence[int] = (),
) -> Iterator[Guest]:
    """:func:`sevlaunch.api.launch`."""
    launched = api.launch(plan, paused=paused, limit=limit, spawner=spawner, extra_args=extra_args, inherit=inherit)
    with _entered(launched) as guest:
        yield guest


@contextmanager
def attach(name: str, *, root: Path | None = None, limit: float = PROGRAMS_TURN_LIMIT) -> Iterator[Guest]:
    """:meth:`sevlaunch.api.Guest.attach`."""
    with _entered(api.Guest.attach(name, root=root, limit=limit)) as guest:
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


def bring_up(
    plans: Sequence[api.Plan],
    options: api.StartOptions | None = None,
    *,
    keep: Callable[[api.Evidence], None] = lambda _: None,
) -> list[api.BroughtUp]:
    """:func:`sevlaunch.api.bring_up`."""
    return _run(api.bring_up(plans, options=options or api.StartOptions(), keep=keep))


def stay(
    plan: api.Plan,
    options: api.StartOptions | None = None,
    *,
    launched: Callable[[api.Evidence], None] = lambda _: None,
    told: Callable[[str], None] = lambda _: None,
    down_limit: float = POWERDOWN_LIMIT,
) -> api.Ended:
    """:func:`sevlaunch.api.stay`; the callbacks are called in the thread of the event loop.

    An interruption of the calling thread takes the guest down first, a second one ends it at once.
    """
    options = options or api.StartOptions()
    return _run(api.stay(plan, options, launched=launched, told=told, down_limit=down_limit))


def take_down(name: str, *, root: Path | None = None, now: bool = False, limit: float = POWERDOWN_LIMIT) -> str:
    """:func:`sevlaunch.api.take_down`."""
    return _run(api.take_down(name, root=root, now=now, limit=limit))


def take_down_many(
    names: Sequence[str], *, root: Path | None = None, now: bool = False, limit: float = POWERDOWN_LIMIT
) -> list[api.TakenDown]:
    """:func:`sevlaunch.api.take_down_many`."""
    return _run(api.take_down_many(names, root=root, now=now, limit=limit))


def restart(
    planned: api.Restart,
    *,
    now: bool = False,
    limit: float = POWERDOWN_LIMIT,
    conditions: Sequence[api.Condition] = (),
    ready_limit: float = READY_LIMIT,
) -> api.BroughtUp:
    """:func:`sevlaunch.api.restart`."""
    return _run(api.restart(planned, now=now, limit=limit, conditions=conditions, ready_limit=ready_limit))


def list_guests(root: Path | None = None) -> list[api.Status]:
    """:func:`sevlaunch.api.list_guests`."""
    return _run(api.list_guests(root))


def guest_status(name: str, root: Path | None = None) -> api.Status:
    """:func:`sevlaunch.api.guest_status`."""
    return _run(api.guest_status(name, root))


def run_in_guest(
    name: str, command: Sequence[str], *, root: Path | None = None, given: bytes = b"", limit: float | None = None
) -> api.ProgramEnd:
    """:func:`sevlaunch.api.run_in_guest`."""
    return _run(api.run_in_guest(name, command, root=root, given=given, limit=limit))


def fetch_report(
    name: str,
    *,
    by: Literal["ssh", "agent"] | None = None,
    nonce: bytes | None = None,
    root: Path | None = None,
    user: str | None = None,
    key: Path | None = None,
    limit: float = 60.0,
) -> api.FetchedReport:
    """:func:`sevlaunch.api.fetch_report`."""
    return _run(api.fetch_report(name, by=by, nonce=nonce, root=root, user=user, key=key, limit=limit))


def wait_for(
    name: str, conditions: Sequence[api.Condition], *, root: Path | None = None, limit: float = READY_LIMIT
) -> None:
    """:func:`sevlaunch.api.wait_for`."""
    _run(api.wait_for(name, conditions, root=root, limit=limit))


def wait_for_end(name: str, *, root: Path | None = None, limit: float | None = None) -> None:
    """:func:`sevlaunch.api.wait_for_end`."""
    _run(api.wait_for_end(name, root=root, limit=limit))


def fetch_image(
    image: str,
    sha256: str = "",
    *,
    options: api.FetchOptions | None = None,
    reports: api.FetchReports | None = None,
    folder: Path | None = None,
) -> api.FetchedImage:
    """:func:`sevlaunch.api.fetch_image`."""
    options, reports = options or api.FetchOptions(), reports or api.FetchReports()
    return _run(api.fetch_image(image, sha256, options=options, reports=reports, folder=folder))


def fetch_missing(
    profiles: Sequence[api.Profile], *, offline: bool = False, reports: api.FetchReports | None = None
) -> list[api.FetchedImage]:
    """:func:`sevlaunch.api.fetch_missing`."""
    return _run(api.fetch_missing(profiles, offline=offline, reports=reports or api.FetchReports()))


def wait_until_ready(guest: Guest, condition: api.Condition, *, limit: float = READY_LIMIT) -> None:
    """:func:`sevlaunch.api.wait_until_ready`."""
    guest.wait_until_ready(condition, limit=limit)


def _run(work: Coroutine[Any, Any, T]) -> T:
    loop = _Loop()
    try:
        return loop.run(work)
    finally:
        loop.close()


async def _enter(block: AbstractAsyncContextManager[T]) -> T:
    return await block.__aenter__()


async def _leave(block: AbstractAsyncContextManager[Any]) -> None:
    await block.__aexit__(None, None, None)
