"""Running asynchronous work so that SIGINT, SIGTERM and SIGHUP end it in good order."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any, TypeVar

from sevlaunch.cli.signals import ENDING, Interrupted, ignore_signals, is_wanted, raise_if_came, signal_came

T = TypeVar("T")

# epoll, and a socket pair to wake it.
_LOOP_DESCRIPTORS = 3


def run(work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work``.

    :raise Interrupted: when a signal cancelled it; what it had begun is undone by then.
    """
    # What has been imported by now is no garbage.
    gc.freeze()
    gc.enable()
    try:
        return _run(work)
    finally:
        # A signal may have come before the work began.
        work.close()


def _run(work: Coroutine[Any, Any, T]) -> T:
    raise_if_came()
    before = {number: signal.getsignal(number) for number in ENDING if is_wanted(number)}
    task: asyncio.Task[Any] | None = None
    came = False

    # Not loop.add_signal_handler(): its handlers run a round of the loop late, so that work could end before a signal
    # that came first, and closing the loop takes them away while the command still has things to do. In place before
    # there is a loop: an exception in the midst of asyncio's own steps would leave it half made.
    def cancel(number: int, frame: FrameType | None) -> None:
        nonlocal came
        came = True
        if task is not None and not task.done():
            task.cancel()
            # Ends the loop's waiting.
            task.get_loop().call_soon_threadsafe(lambda: None)

    async def cancellable() -> T:
        nonlocal task
        task = asyncio.current_task()
        if came or signal_came():
            raise asyncio.CancelledError
        return await work

    _check_descriptors()
    for number in before:
        signal.signal(number, cancel)
    try:
        return asyncio.run(cancellable())
    except asyncio.CancelledError:
        ignore_signals()
        raise Interrupted from None
    finally:
        if came:
            # What it asked for is done.
            ignore_signals()
        for number, handler in before.items():
            if is_wanted(number):
                signal.signal(number, handler)


def _check_descriptors() -> None:
    """See that there are descriptors for a loop: one that gets none is left half made, and complains of that itself.

    :raise OSError: when there are not.
    """
    with ExitStack() as opened:
        for _ in range(_LOOP_DESCRIPTORS):
            opened.callback(os.close, os.open("/", os.O_PATH | os.O_CLOEXEC))


@contextmanager
def no_way_back() -> Iterator[None]:
    """A block that no signal interrupts, because afterwards there is nothing left to undo."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        ignore_signals()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
