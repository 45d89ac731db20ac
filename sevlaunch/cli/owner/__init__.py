"""The guest owner's commands: ``sevlaunch owner ...``. One module for each."""

from __future__ import annotations

import typer

from sevlaunch.cli.owner import compare, digest, id_block, report, secret, session, verify


def register(app: typer.Typer) -> None:
    """Add ``owner`` and its commands to ``app``."""
    owner = typer.Typer(
        name="owner",
        help="The guest owner's side: from files alone, trusting AMD's keys and nothing on the host.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    for module in (session, digest, verify, secret, report, id_block, compare):
        module.register(owner)
    app.add_typer(owner)
