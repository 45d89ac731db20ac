"""stdout and stderr: each line goes out at once; a guest does not end because nobody reads of it."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, TextIO

from sevlaunch.errors import HostError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class _Output(io.FileIO):
    """A descriptor that takes what is written, whether or not it gets anywhere; the first failure is kept."""

    failure: OSError | None = None

    def write(self, data: ReadableBuffer, /) -> int:
        if self.failure is None:
            try:
                return super().write(data)
            except OSError as error:
                self.failure = error
        return memoryview(data).nbytes


def prepare_streams() -> None:
    """Put both streams in place of Python's own."""
    sys.stdout, sys.stderr = _prepared(sys.stdout), _prepared(sys.stderr)


def _prepared(stream: TextIO) -> TextIO:
    # It is None where the caller has closed it.
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    output = io.BufferedWriter(_Output(stream.fileno(), "w", closefd=False))
    # A file's name may hold what the terminal's encoding does not have. What stays for long, such as a guest in the
    # foreground, is read of while it runs, also by a program.
    return io.TextIOWrapper(output, encoding=stream.encoding, errors="backslashreplace", line_buffering=True)


def _failure() -> OSError | None:
    output = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return output.failure if isinstance(output, _Output) else None


def is_read() -> bool:
    """Whether what is printed gets anywhere: a command that only prints has an end without that."""
    return _failure() is None


def check_output() -> None:
    """See that all that was printed got out.

    :raise HostError: when it did not, unless whoever read it had enough, as ``head`` has.
    """
    sys.stdout.flush()
    failure = _failure()
    if failure is not None and not isinstance(failure, BrokenPipeError):
        raise HostError(
            f"can't write the output: {failure.strerror}",
            hint="the command did its work; make room where its output goes, then ask again, such as with status",
        )
