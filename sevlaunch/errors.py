"""Every error that sevlaunch raises on purpose.

::

    SevlaunchError            exit code 1: the command ran and the answer is no
    +-- UsageError            2: the command was called wrongly
    +-- ProfileError          3: the profile is refused
    +-- HostError             4: this host can't run it
    |   +-- UnsafeFile        4: what is in the place of a guest's file is not that file
    |   +-- ImageError        4: an image can't be fetched, or is not what was promised
    +-- QemuError             5: QEMU failed
    |   +-- QmpError          5: QEMU answered a QMP command with an error, or not in QMP
    +-- GuestTimeout          6: a limit passed
    |   +-- GuestBusy         6: others had what was waited for
    +-- EvidenceError         7: evidence, or an attestation report, can't be read
    +-- UnsupportedError      8: this can't be verified, whoever asks
    +-- InsecureUse           9: the answer would prove nothing
    +-- GuestNotFound         10: no guest of that name
    |   +-- GuestEnded        1: it is there, and has ended
    +-- NameTaken             1: a guest of that name runs already

A message says what was wanted and what was found; the hint says what to do next.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sevlaunch.text import visible, visible_lines

EXIT_INTERRUPTED = 130
# The class of a QmpError whose answer came, and is none that QEMU should give.
UNEXPECTED_ANSWER = "UnexpectedAnswer"


class Problem(NamedTuple):
    """One thing that is wrong, and where.

    ``location`` is ``file:line:column`` (or the option that set the value), ``path`` the dotted
    path in the profile, ``hint`` what to do about it. Each may be empty.
    """

    message: str
    location: str = ""
    path: str = ""
    hint: str = ""

    def __str__(self) -> str:
        text = ": ".join(part for part in (self.location, self.path, self.message) if part)
        return f"{text} ({self.hint})" if self.hint else text


class SevlaunchError(Exception):
    """Root of all errors of sevlaunch.

    :param message: what was wanted and what was found.
    :param hint: the next step for the user, or empty.
    :param problems: the single findings, where there are several.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "", problems: Sequence[Problem] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.problems = tuple(problems)

    def lines(self) -> list[str]:
        """The error for people; what it quotes of others can't look like a line of ours."""
        return [*map(visible, self._findings()), *self._hint()]

    def _findings(self) -> list[str]:
        return [self.message, *(f"  {problem}" for problem in self.problems)]

    def _hint(self) -> list[str]:
        # It may end with the last lines of a guest's console.
        first, *others = visible_lines(self.hint).split("\n")
        return [f"hint: {first}", *(f"  {line}" for line in others)] if self.hint else []

    def __str__(self) -> str:
        return "\n".join(self.lines())


class UsageError(SevlaunchError):
    """The command, or a library call, was made wrongly."""

    exit_code = 2


class ProfileError(SevlaunchError):
    """The profile is refused; ``problems`` has every reason."""

    exit_code = 3

    def _findings(self) -> list[str]:
        # A profile's mistakes stand at the start of the line, as a compiler prints them, so that editors jump there.
        return [str(problem) for problem in self.problems] or [self.message]


class HostError(SevlaunchError):
    """This host can't run the guest; ``problems`` has everything that is missing."""

    exit_code = 4


class UnsafeFile(HostError):
    """In the place of a file or folder of sevlaunch's is a link, say, or one that belongs to somebody else."""


class ImageError(HostError):
    """An image can't be fetched, or is not what its publisher, or a checksum, promises."""


class QemuError(SevlaunchError):
    """QEMU did not start, died, or did not do what it was asked.

    :param stderr: the last lines that QEMU printed.
    """

    exit_code = 5

    def __init__(self, message: str, *, hint: str = "", stderr: Sequence[str] = ()) -> None:
        super().__init__(message, hint=hint)
        self.stderr = tuple(stderr)

    def _findings(self) -> list[str]:
        return [self.message, *(f"  qemu: {line}" for line in self.stderr)]


class QmpError(QemuError):
    """A QMP command failed.

    :param error_class: QMP's class of the error, such as ``GenericError``, or :data:`UNEXPECTED_ANSWER`; empty where
        the connection itself failed.
    """

    def __init__(self, message: str, *, error_class: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.error_class = error_class


class GuestTimeout(SevlaunchError):
    """Something did not happen within its limit."""

    exit_code = 6


class GuestBusy(GuestTimeout):
    """Other commands or programs talked to the guest all the time."""


class EvidenceError(SevlaunchError):
    """Evidence of a launch, or an attestation report, is damaged or is none."""

    exit_code = 7


class UnsupportedError(SevlaunchError):
    """What is asked can't be answered for this kind of launch, with whatever options."""

    exit_code = 8


class InsecureUse(SevlaunchError):
    """The answer would prove nothing: it is refused unless the user insists."""

    exit_code = 9


class GuestNotFound(SevlaunchError):
    """No guest of that name is known here."""

    exit_code = 10


class GuestEnded(GuestNotFound):
    """The guest of that name has ended: what is left of it can be looked at, and nothing can be asked."""

    exit_code = 1


class NameTaken(SevlaunchError):
    """A guest of that name runs already, or is being started."""
