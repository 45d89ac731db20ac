"""`sevlaunch owner compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sevlaunch.cli.output import Format, FormatOption, print_json, say


def register(owner: typer.Typer) -> None:
    """Add the command to ``owner``."""
    owner.command("compare")(compare)


def compare(
    one: Annotated[Path, typer.Argument(metavar="LOCK", help="A launch lock file.")],
    other: Annotated[Path, typer.Argument(metavar="LOCK", help="Another one.")],
    output: FormatOption = Format.TEXT,
) -> None:
    """Do two lock files describe the same launch? Exit 0: yes; 1: no, and what differs."""
    from sevlaunch.owner.lock import compare_locks, read_lock

    found = compare_locks(read_lock(one), read_lock(other))
    if output is Format.JSON:
        print_json(
            {
                "same": not found,
                "differences": [
                    {"field": path, "first": first, "second": second} for path, (first, second) in found.items()
                ],
            }
        )
    else:
        for path, (first, second) in found.items():
            say(path, f"  {one}: {first}", f"  {other}: {second}")
        if not found:
            say("the same launch")
    if found:
        raise typer.Exit(1)
