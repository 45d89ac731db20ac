"""Running asynchronous work so that SIGINT, SIGTERM and SIGHUP end it in good order."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")

_ENDING = (signal.SIGTERM, signal.SIGHUP)


def run(work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work``.

    :raise KeyboardInterrupt: when a signal cancelled it; what it had begun is undone by then.
    """

    async def cancellable() -> T:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        for number in _ENDING:
            loop.add_signal_handler(number, task.cancel)
        return await work

    try:
        # asyncio.run() turns SIGINT into a cancellation by itself.
        return asyncio.run(cancellable())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


@contextmanager
def no_way_back() -> Iterator[None]:
    """A block that no signal interrupts, because afterwards there is nothing left to undo."""
    signals = {signal.SIGINT, *_ENDING}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        for number in signals:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
