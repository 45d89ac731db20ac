"""Results to stdout, everything else to stderr; text for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated, Any

import typer

from sevlaunch.errors import QemuError, SevlaunchError


class Format(StrEnum):
    """How results are printed."""

    TEXT = "text"
    JSON = "json"


_chosen = Format.TEXT


def _choose(value: Format) -> Format:
    # Errors are printed by main(), which does not see the command's options.
    global _chosen
    _chosen = value
    return value


FormatOption = Annotated[
    Format, typer.Option("--format", help="How to print the result.", callback=_choose, is_eager=True)
]


def print_json(value: Any) -> None:
    """A result for programs."""
    # A path may hold bytes that are no UTF-8; JSON carries them as escapes.
    text = json.dumps(value, indent=2, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = json.dumps(value, indent=2)
    print(text)


def print_error(error: SevlaunchError) -> None:
    """An error, on stderr, as text or JSON."""
    if _chosen is Format.JSON:
        details: dict[str, Any] = {
            "kind": type(error).__name__,
            "message": error.message,
            "hint": error.hint,
            "exit_code": error.exit_code,
            "problems": [problem._asdict() for problem in error.problems],
        }
        if isinstance(error, QemuError):
            details["stderr"] = list(error.stderr)
        print(json.dumps({"error": details}, indent=2), file=sys.stderr)
        return
    text = str(error)
    # Mistakes in a profile stand at the start of the line, for editors.
    print(text if error.exit_code == 3 else f"sevlaunch: {text}", file=sys.stderr)


def note(text: str) -> None:
    """Something that the user should know, on stderr."""
    print(text, file=sys.stderr)


@contextmanager
def progress(text: str) -> Iterator[None]:
    """Show what takes time, on a terminal only; the line is gone afterwards."""
    if not sys.stderr.isatty():
        yield
        return
    print(f"{text} ...", end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        print("\r\033[K", end="", file=sys.stderr, flush=True)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest value."""
    lines = [tuple(header), *(tuple(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
