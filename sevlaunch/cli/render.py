"""The command render."""

# No postponed annotations: typer evaluates those of each option twice, which takes longer than to make all of them.
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sevlaunch.cli.failures import note
from sevlaunch.cli.output import print_document
from sevlaunch.cli.profile_options import NameOption, ProfileArgument, SetOption


class RenderFormat(StrEnum):
    """How a command line is printed."""

    SHELL = "shell"
    JSON = "json"
    LINES = "lines"
    EXPLAIN = "explain"


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("render")(render)


def render(
    profile: ProfileArgument,
    host: Annotated[Path | None, typer.Option("--host", help="Render for the host saved in this file.")] = None,
    name: NameOption = None,
    overrides: SetOption = [],  # noqa: B006 - typer reads the default
    rehearse: Annotated[bool, typer.Option("--rehearse", help="As a rehearsal would start it.")] = False,
    lock: Annotated[
        bool, typer.Option("--lock", help="Print the launch lock file: hashes, and the digests that they must give.")
    ] = False,
    output: Annotated[RenderFormat, typer.Option("--format", help="How to print it.")] = RenderFormat.SHELL,
) -> None:
    """Print the QEMU command line of a profile, for this host or another one; or its launch lock file."""
    from sevlaunch.flows.completion import complete_plan
    from sevlaunch.flows.hosts import host_for
    from sevlaunch.plan.formats import format_plan
    from sevlaunch.plan.resolve import resolve
    from sevlaunch.profile.loader import load

    loaded = load(profile, overrides=overrides, name=name)
    facts = host_for(loaded.profile, host)
    plan = complete_plan(loaded, resolve(loaded, facts, rehearse=rehearse), facts)
    if output is not RenderFormat.EXPLAIN:
        for warning in plan.warnings:
            note(f"sevlaunch: warning: {warning}")
    if lock:
        from sevlaunch.owner.lock import lock_plan

        print_document(lock_plan(loaded, plan).to_json())
        return
    print_document(format_plan(plan, output.value) + "\n")
