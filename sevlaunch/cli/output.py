"""Results, on stdout: lines for people, JSON for programs, and files' contents. Notes and errors: failures.py."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated, Any

import typer

from sevlaunch.cli.failures import print_as_json
from sevlaunch.text import visible, visible_lines

# What JSON may hold as it is and a terminal acts on: json.dumps() writes only the first 32 of these as escapes.
_NOT_SHOWN = r"[^\x00-\x7e]"


class Format(StrEnum):
    """How results are printed."""

    TEXT = "text"
    JSON = "json"


def _choose(value: Format) -> Format:
    print_as_json(value is Format.JSON)
    return value


FormatOption = Annotated[
    Format, typer.Option("--format", help="How to print the result.", callback=_choose, is_eager=True)
]


def say(*lines: str) -> None:
    """Print each line for people. What others wrote in it is made visible, and can't begin another line."""
    for line in lines:
        print(visible(line))


def print_document(text: str) -> None:
    """Print what is to be a file, such as a script: as it is, but to a terminal without control characters."""
    print(visible_lines(text) if sys.stdout.isatty() else text, end="")


def print_json(value: Any) -> None:
    """A result for programs: plain data, and structs, which are mappings of their fields."""
    # Escapes mean the same; a path may hold bytes that are no UTF-8, too.
    print(re.sub(_NOT_SHOWN, _escaped, json.dumps(value, indent=2, ensure_ascii=False, default=_fields)))


def _fields(value: Any) -> Any:
    # The list of the commands is shown without it.
    from msgspec import to_builtins

    return to_builtins(value)


def print_json_line(value: Any) -> None:
    """One of several results for programs, each in a line of its own."""
    print(json.dumps(value))


def _escaped(match: re.Match[str]) -> str:
    return match[0] if match[0].isprintable() else json.dumps(match[0])[1:-1]


class ProgressLine:
    """A line on a terminal that tells how much of something is there; elsewhere nothing."""

    def __init__(self) -> None:
        self._shown = ""

    def show(self, text: str) -> None:
        """Put ``text`` in its place, unless it stands there already."""
        if text != self._shown and sys.stderr.isatty():
            print(f"\r{visible(text)}\033[K", end="", file=sys.stderr, flush=True)
            self._shown = text

    def clear(self) -> None:
        """Take the line away."""
        if self._shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
        self._shown = ""


@contextmanager
def progress(text: str) -> Iterator[None]:
    """Show what takes time, on a terminal only; the line is gone afterwards."""
    if not sys.stderr.isatty():
        yield
        return
    print(f"{visible(text)} ...", end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        print("\r\033[K", end="", file=sys.stderr, flush=True)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table, for :func:`say`; columns are as wide as their widest value."""
    lines = [tuple(map(visible, line)) for line in (header, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
