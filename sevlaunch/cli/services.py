"""The command unit: a guest as a service of systemd."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from sevlaunch.cli.failures import note
from sevlaunch.cli.output import Format, FormatOption, print_document, print_json
from sevlaunch.cli.profile_options import NameOption, ProfileArgument, SetOption


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("unit")(unit)


def unit(
    profile: ProfileArgument,
    name: NameOption = None,
    overrides: SetOption = [],  # noqa: B006 - typer reads the default
    user: Annotated[bool, typer.Option("--user", help="For the user's own systemd.")] = False,
    host_file: Annotated[
        Path | None, typer.Option("--host", metavar="FILE", help="For the host saved in this file.")
    ] = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Print a systemd unit that runs the guest of a profile."""
    from sevlaunch.flows.hosts import host_for
    from sevlaunch.plan.resolve import resolve
    from sevlaunch.plan.unit import Service, install_hint, systemd_unit, unit_name
    from sevlaunch.profile.loader import load

    loaded = load(profile, overrides=overrides, name=name)
    host = host_for(loaded.profile, host_file)
    plan = resolve(loaded, host)
    arguments = [str(profile.absolute()), *(("--name", name) if name else ())]
    arguments += [word for override in overrides for word in ("--set", override)]
    if loaded.profile.has_fetched_images:
        # Neither the network nor the cache is a service's to use: who makes the unit fetches the image.
        arguments.append("--offline")
    service = Service((sys.executable, "-m", "sevlaunch"), tuple(arguments), user)
    text = systemd_unit(plan, service)
    if output is Format.JSON:
        print_json({"name": unit_name(plan.name), "user": user, "unit": text})
        return
    print_document(text)
    for line in install_hint(plan, service):
        note(f"sevlaunch: {line}")
