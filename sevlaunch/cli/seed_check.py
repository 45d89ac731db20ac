"""`image seed-check`: what goes into an image, so that its guests check their first-boot seed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sevlaunch.cli.output import Format, FormatOption, print_json, say


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("seed-check")(seed_check)


def seed_check(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write them: usr/ and etc/ below it.")],
    output: FormatOption = Format.TEXT,
) -> None:
    """Write what goes into an image, so that its guests compare their first-boot seed before cloud-init takes it.

    A program, its systemd unit and cloud-init's settings, as they have to lie in the image's root folder. The image has
    to be measured: a host that can change it leaves them out.
    """
    from sevlaunch.image.in_guest import write_seed_check

    written = write_seed_check(folder)
    if output is Format.JSON:
        print_json({"files": [str(path) for path in written]})
        return
    say(*(f"{path}" for path in written))
