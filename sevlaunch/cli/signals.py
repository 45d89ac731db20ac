"""The signals that end a command, from its first moment to its last; apart from asyncio, to be there before it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """One of the signals came.

    No KeyboardInterrupt: typer catches that, and ends the command without a word. CPython remembers one that passed
    through exec() of a string, as a dataclass is made with, and then ends with signal 2 in place of the exit code,
    although it was caught.
    """


_came = False
_under_way = False
_held = False


def catch_signals() -> None:
    """From here on the first of the signals raises :class:`Interrupted`; a second would fall into the end itself."""
    sys.unraisablehook = _report_unraisable
    for number in ENDING:
        if is_wanted(number):
            signal.signal(number, _interrupt)


def ignore_signals() -> None:
    """From here on the end is decided: no signal changes the exit code."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


def is_wanted(number: signal.Signals) -> bool:
    """Whether a signal may end the command: nohup, and a shell in the background, have some of them ignored."""
    return signal.getsignal(number) is not signal.SIG_IGN


def signal_came() -> bool:
    """Whether one came, whose exception may be lost or be the cause of another.

    Python drops what is raised in a callback from C, and wraps what is raised while a class is made.
    """
    return _came


def raise_if_came() -> None:
    """End the command, if a signal came that has not ended it yet: from here on no other one raises anything.

    :raise Interrupted: when one came.
    """
    global _under_way
    if _came:
        _under_way = True
        raise Interrupted


@contextmanager
def hold_signals() -> Iterator[None]:
    """A block that no signal interrupts: one that comes is noted, for :func:`signal_came`.

    :raise Interrupted: at the end of the block, when one came and nothing else has been raised.
    """
    global _held, _under_way
    _held = True
    try:
        yield
    finally:
        _held = False
    if _came and not _under_way:
        _under_way = True
        raise Interrupted


def _report_unraisable(lost: UnraisableHookArgs) -> None:
    global _under_way
    if issubclass(lost.exc_type, Interrupted):
        # It ends nothing: the next signal may.
        _under_way = False
    else:
        sys.__unraisablehook__(lost)


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _came, _under_way
    _came = True
    if not (_under_way or _held):
        _under_way = True
        raise Interrupted
