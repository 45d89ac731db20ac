"""What becomes of errors: lines for people, or one JSON document, on stderr."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from sevlaunch.errors import EXIT_INTERRUPTED, QemuError, SevlaunchError
from sevlaunch.text import visible

_IN_SEVLAUNCH = "this is a mistake in sevlaunch; `sevlaunch --debug ...` shows where"

_as_json = False


class SeveralErrors(Exception):
    """What went wrong with several guests; the exit code is that of the first.

    :param errors: one or more.
    """

    def __init__(self, errors: Sequence[SevlaunchError]) -> None:
        super().__init__(errors)
        self.errors = tuple(errors)


def set_format(words: Sequence[str]) -> None:
    """Take the format of errors from a command line, before it is parsed: that may fail, too."""
    options = words[: words.index("--")] if "--" in words else words
    print_as_json("--format=json" in options or ("--format", "json") in pairwise(options))


def print_as_json(wanted: bool) -> None:
    """Choose the format of errors and notes."""
    global _as_json
    _as_json = wanted


def print_errors(errors: Sequence[SevlaunchError]) -> None:
    """Print what went wrong; in JSON ``error`` is the first, and ``errors`` are all where there are several."""
    if _as_json:
        details = [_describe(error) for error in errors]
        _print_json({"error": details[0], "errors": details} if details[1:] else {"error": details[0]})
        return
    for text, error in {str(error): error for error in errors}.items():
        # Mistakes in a profile stand at the start of the line, for editors.
        print(text if error.exit_code == 3 else f"sevlaunch: {text}", file=sys.stderr)


def print_usage_error(message: str, text: str, exit_code: int) -> None:
    """Print that the command line is wrong.

    :param text: all of it for people, which tells how it is used, too.
    """
    if _as_json:
        _print_json({"error": _document("UsageError", message, "sevlaunch COMMAND --help", exit_code)})
        return
    for line in text.splitlines():
        print(visible(line), file=sys.stderr)


def print_internal_error(error: Exception) -> None:
    """Print what nobody expected."""
    message = f"{type(error).__name__}: {error}"
    if _as_json:
        _print_json({"error": _document("InternalError", message, _IN_SEVLAUNCH, 1)})
        return
    print(f"sevlaunch: internal error: {visible(message)}\nhint: {_IN_SEVLAUNCH}", file=sys.stderr)


def print_interrupted() -> None:
    """Print that a signal ended the command."""
    if _as_json:
        _print_json({"error": _document("Interrupted", "interrupted", "", EXIT_INTERRUPTED)})
        return
    print("sevlaunch: interrupted", file=sys.stderr)


def note(text: str, *, end: str = "\n") -> None:
    """Something that the user should know, in one line on stderr; in JSON a document with ``note``."""
    if _as_json:
        _print_json({"note": text.removeprefix("sevlaunch: ")}, indent=None)
        return
    print(visible(text), end=end, file=sys.stderr)


def _describe(error: SevlaunchError) -> dict[str, Any]:
    details = _document(type(error).__name__, error.message, error.hint, error.exit_code)
    details["problems"] = [problem._asdict() for problem in error.problems]
    if isinstance(error, QemuError):
        details["stderr"] = list(error.stderr)
    return details


def _document(kind: str, message: str, hint: str, exit_code: int) -> dict[str, Any]:
    return {"kind": kind, "message": message, "hint": hint, "exit_code": exit_code, "problems": []}


def _print_json(document: dict[str, Any], indent: int | None = 2) -> None:
    # Most commands have no error to print.
    import json

    print(json.dumps(document, indent=indent), file=sys.stderr)
