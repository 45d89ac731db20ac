"""The command up."""

# No postponed annotations: typer evaluates those of each option twice, which takes longer than to make all of them.
from pathlib import Path
from typing import Annotated

import typer

from sevlaunch.cli.complete import conditions, profile_files
from sevlaunch.cli.output import Format, FormatOption
from sevlaunch.cli.profile_options import FreshOption, NameOption, OfflineOption, SetOption


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("up")(up)


def up(
    profiles: Annotated[list[Path], typer.Argument(help="Profiles.", autocompletion=profile_files)],
    name: NameOption = None,
    count: Annotated[
        int | None, typer.Option("--count", help="Start N guests of each profile: NAME-1, NAME-2, ...", min=1, max=1000)
    ] = None,
    overrides: SetOption = [],  # noqa: B006 - typer reads the default
    paused: Annotated[bool, typer.Option("--paused", help="Stop before the first instruction.")] = False,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Stay until the guest ends; Ctrl-C takes it down, twice at once.")
    ] = False,
    rehearse: Annotated[
        bool, typer.Option("--rehearse", help="Emulate the secure processor: no SEV needed, memory is NOT encrypted.")
    ] = False,
    fresh: FreshOption = False,
    offline: OfflineOption = False,
    no_verity_check: Annotated[
        bool, typer.Option("--no-verity-check", help="Start without looking whether a root is what its hash tree says.")
    ] = False,
    evidence_file: Annotated[
        Path | None, typer.Option("--evidence", metavar="FILE", help="Write the evidence of the launch there, too.")
    ] = None,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Verify the launch against this plan, then let it run; end it on any doubt."),
    ] = False,
    tik: Annotated[Path | None, typer.Option("--tik", metavar="FILE", help="With --verify: the session's TIK.")] = None,
    tek: Annotated[Path | None, typer.Option("--tek", metavar="FILE", help="With --secret: the session's TEK.")] = None,
    secret: Annotated[
        list[str], typer.Option("--secret", metavar="GUID:FILE", help="With --verify: inject it once verified.")
    ] = [],  # noqa: B006 - typer reads the default
    lock: Annotated[
        Path | None, typer.Option("--lock", metavar="FILE", help="Write the launch lock file there.")
    ] = None,
    timeout: Annotated[
        float | None, typer.Option("--timeout", help="Seconds that the start may take.", min=0.1)
    ] = None,
    wait: Annotated[
        list[str],
        typer.Option(
            "--wait",
            metavar="CONDITION",
            help="Wait: ssh, cloud-init, console:TEXT, port:HOST:PORT, port:GUESTPORT, vsock:PORT or qga.",
            autocompletion=conditions,
        ),
    ] = [],  # noqa: B006 - typer reads the default
    wait_timeout: Annotated[
        float, typer.Option("--wait-timeout", help="Seconds that each --wait may take.", min=0.1)
    ] = 120.0,
    down_timeout: Annotated[
        float, typer.Option("--down-timeout", help="With --foreground: seconds for the guest to power down.", min=0)
    ] = 60.0,
    output: FormatOption = Format.TEXT,
) -> None:
    """Start guests; print their SEV state and launch measurement."""
    from sevlaunch.cli.start import Request, start

    start(
        Request(
            profiles=tuple(profiles),
            name=name,
            count=count,
            overrides=tuple(overrides),
            paused=paused,
            foreground=foreground,
            rehearse=rehearse,
            fresh=fresh,
            offline=offline,
            verity_check=not no_verity_check,
            evidence_file=evidence_file,
            lock_file=lock,
            verify=verify,
            tik=tik,
            tek=tek,
            secrets=tuple(secret),
            limit=timeout,
            conditions=tuple(wait),
            ready_limit=wait_timeout,
            down_limit=down_timeout,
            output=output,
        )
    )
