"""The command that takes a guest down and starts it again."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from sevlaunch.cli.complete import conditions, guest_names
from sevlaunch.cli.failures import note
from sevlaunch.cli.output import Format, FormatOption, progress
from sevlaunch.cli.profile_options import FreshOption, OfflineOption
from sevlaunch.errors import UsageError


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("restart")(restart)


def restart(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A guest.", autocompletion=guest_names)],
    fresh: FreshOption = False,
    offline: OfflineOption = False,
    now: Annotated[bool, typer.Option("--now", help="Don't ask the guest: quit QEMU at once.")] = False,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds for the guest to power down.", min=0)] = 60.0,
    wait: Annotated[
        list[str],
        typer.Option("--wait", metavar="CONDITION", help="Wait as `up --wait` does.", autocompletion=conditions),
    ] = [],  # noqa: B006 - typer reads the default
    wait_timeout: Annotated[
        float, typer.Option("--wait-timeout", help="Seconds that each --wait may take.", min=0.1)
    ] = 120.0,
    output: FormatOption = Format.TEXT,
) -> None:
    """Take a guest down, and start it again as it was started, by what its profile says now.

    The new start is planned, and an image that is missing fetched, before the guest is taken down: where that fails, it
    runs on.
    """
    from sevlaunch.cli.fetching import fetch_for_guests
    from sevlaunch.cli.interrupt import run
    from sevlaunch.cli.status_text import show_guest
    from sevlaunch.flows.restart import plan_restart
    from sevlaunch.flows.restart import restart as start_again
    from sevlaunch.guest.readiness import parse_condition

    conditions = [parse_condition(text) for text in wait]
    planned = plan_restart(name, fresh=fresh, fetch=partial(fetch_for_guests, offline=offline))
    if planned.started.paused and conditions:
        raise UsageError(f"{name} is started paused, and --wait waits for what it then never does", hint="leave it out")
    for warning in dict.fromkeys(planned.plan.warnings):
        note(f"sevlaunch: warning: {warning}")
    if planned.plan.rehearsal:
        note("sevlaunch: REHEARSAL: memory is NOT encrypted")
    with progress(f"restarting {name}"):
        finished = run(start_again(planned, now=now, limit=timeout, conditions=conditions, ready_limit=wait_timeout))
    if finished.evidence:
        show_guest(finished.evidence, output)
