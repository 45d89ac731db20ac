"""The guest owner's commands: ``sevlaunch owner ...``. One module for each concern."""

from __future__ import annotations

import typer

from sevlaunch.cli.owner import compare, digest, secret, verify


def register(app: typer.Typer) -> None:
    """Add ``owner`` with its commands to ``app``."""
    owner = typer.Typer(
        name="owner", help="The guest owner's side: from files alone, on another machine.", no_args_is_help=True
    )
    for module in (compare, digest, secret, verify):
        module.register(owner)
    app.add_typer(owner)
