"""Commands about guests: down, rm, ps, status, evidence, console, qmp, inject, resume."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from sevlaunch.cli.complete import guest_names, kept_names
from sevlaunch.cli.failures import SeveralErrors, note
from sevlaunch.cli.output import Format, FormatOption, print_json, progress, say, table
from sevlaunch.errors import SevlaunchError, UsageError

GuestArgument = Annotated[str, typer.Argument(metavar="NAME", help="A guest.", autocompletion=guest_names)]


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    for command in (down, rm, ps, status, evidence, console, qmp, inject, resume):
        app.command(command.__name__)(command)
    app.command("ls", hidden=True)(ps)


def down(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", autocompletion=guest_names)] = None,
    everything: Annotated[bool, typer.Option("--all", help="All guests.")] = False,
    now: Annotated[bool, typer.Option("--now", help="Don't ask the guest: quit QEMU at once.")] = False,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds for the guest to power down.", min=0)] = 60.0,
    output: FormatOption = Format.TEXT,
) -> None:
    """Take guests down: ACPI power-down, then quit, then kill."""
    from sevlaunch.cli.interrupt import run
    from sevlaunch.flows.take_down import take_down_many
    from sevlaunch.guest.folder import guests
    from sevlaunch.host.folders import runtime_folder

    if everything:
        names = [folder.name for folder in guests(runtime_folder())]
    elif not names:
        raise UsageError("wanted the name of a guest, found none", hint="sevlaunch down NAME, or --all")

    with progress(f"taking down {', '.join(names)}"):
        finished = run(take_down_many(names, now=now, limit=timeout))
    if output is Format.JSON:
        print_json([{"name": one.name, "how": one.how} for one in finished if one.how])
    else:
        for one in finished:
            if one.how:
                say(f"{one.name}: {one.how}")
    if errors := [one.error for one in finished if one.error]:
        raise SeveralErrors(errors)


def rm(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME...", help="Guests that don't run.", autocompletion=kept_names)
    ],
    output: FormatOption = Format.TEXT,
) -> None:
    """Remove what outlives a guest, such as its NVRAM and overlays; disks that its profile names stay."""
    from sevlaunch.guest.removal import remove_state
    from sevlaunch.host.folders import runtime_folder, state_folder

    removed, errors = [], []
    for name in names:
        try:
            files = remove_state(name, root=runtime_folder(), state=state_folder())
        except SevlaunchError as error:
            errors.append(error)
        else:
            removed.append({"name": name, "files": [str(file) for file in files]})
    if output is Format.JSON:
        print_json(removed)
    else:
        for one in removed:
            say(f"{one['name']}: removed {', '.join(one['files']) or 'an empty folder'}")
    if errors:
        raise SeveralErrors(errors)


def ps(output: FormatOption = Format.TEXT) -> None:
    """List the guests."""
    from sevlaunch.cli.interrupt import run
    from sevlaunch.flows.guests import list_guests

    found = run(list_guests())
    if output is Format.JSON:
        print_json([one.to_dict() for one in found])
        return
    rows = [
        (
            one.name,
            one.state,
            one.sev.type + (" (rehearsal)" if one.rehearsal else ""),
            str(one.pid or "-"),
            str(one.vcpus or "-"),
            one.qemu.version if one.qemu else "-",
            one.profile or "-",
        )
        for one in found
    ]
    say(*table(("NAME", "STATE", "TYPE", "PID", "VCPUS", "QEMU", "PROFILE"), rows))


def status(name: GuestArgument, output: FormatOption = Format.TEXT) -> None:
    """Show a guest's state, its SEV state and its launch measurement."""
    from sevlaunch.cli.interrupt import run
    from sevlaunch.cli.status_text import show_guest
    from sevlaunch.flows.guests import guest_status

    show_guest(run(guest_status(name)), output)


def evidence(name: GuestArgument, output: FormatOption = Format.JSON) -> None:
    """Print what the launch showed, as JSON for the guest owner."""
    from sevlaunch.guest.evidence import read_evidence
    from sevlaunch.guest.folder import find
    from sevlaunch.host.folders import runtime_folder

    found = read_evidence(find(runtime_folder(), name))
    if found is None:
        raise SevlaunchError(f"the launch of {name!r} left no evidence", hint=f"see: sevlaunch status {quote(name)}")
    print_json(found.to_dict())


def console(name: GuestArgument) -> None:
    """Open an interactive terminal on the guest's console; Ctrl-] leaves it."""
    from sevlaunch.guest.console import attach
    from sevlaunch.guest.folder import find
    from sevlaunch.host.folders import runtime_folder

    folder = find(runtime_folder(), name)
    interactive = sys.stdin.isatty()

    def greet() -> None:
        if interactive:
            # The terminal is raw by now: a new line does not go back to the first column by itself.
            note(f"connected to {name}; leave with Ctrl-]", end="\r\n")

    reason = attach(folder, sys.stdin.fileno(), sys.stdout.fileno(), greet)
    if interactive:
        note(reason)


def qmp(
    name: GuestArgument,
    command: Annotated[str, typer.Argument(help="A QMP command such as query-status.")],
    arguments: Annotated[str | None, typer.Argument(metavar="[JSON]", help="Its arguments, a JSON object.")] = None,
    output: FormatOption = Format.JSON,
) -> None:
    """Send a QMP command to the guest's QEMU; print what it returns."""
    from sevlaunch.cli.interrupt import run
    from sevlaunch.guest.commands import execute
    from sevlaunch.host.folders import runtime_folder

    try:
        parsed = json.loads(arguments) if arguments else None
    except ValueError as error:
        raise UsageError(f"wanted a JSON object, found {arguments!r}: {error}") from error
    if parsed is not None and not isinstance(parsed, dict):
        raise UsageError(f"wanted a JSON object, found {arguments!r}")
    print_json(run(execute(runtime_folder(), name, command, parsed)))


def inject(
    name: GuestArgument,
    header: Annotated[Path, typer.Option("--header", metavar="FILE", help="From `sevlaunch owner secret`.")],
    payload: Annotated[Path, typer.Option("--payload", metavar="FILE", help="From `sevlaunch owner secret`.")],
    output: FormatOption = Format.TEXT,
) -> None:
    """Put the owner's secrets into a guest that waits paused in its launch."""
    from sevlaunch.cli.interrupt import run
    from sevlaunch.cli.status_text import show_guest
    from sevlaunch.guest.commands import inject as inject_secret
    from sevlaunch.host.folders import runtime_folder
    from sevlaunch.owner.secret import read_packet

    packet = read_packet(header, payload)
    show_guest(run(inject_secret(runtime_folder(), name, packet.header, packet.payload)), output)


def resume(name: GuestArgument, output: FormatOption = Format.TEXT) -> None:
    """Let a paused guest run."""
    from sevlaunch.cli.interrupt import run
    from sevlaunch.cli.status_text import show_guest
    from sevlaunch.guest.commands import resume as let_run
    from sevlaunch.host.folders import runtime_folder

    show_guest(run(let_run(runtime_folder(), name)), output)
