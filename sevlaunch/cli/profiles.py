"""Commands about profiles and the host: check, render, schema, init, policy, host."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from sevlaunch.cli.complete import profile_files
from sevlaunch.cli.output import Format, FormatOption, note, print_json
from sevlaunch.errors import ProfileError, UsageError

ProfileArgument = Annotated[Path, typer.Argument(help="A profile.", autocompletion=profile_files)]
NameOption = Annotated[str | None, typer.Option("--name", help="A name for the guest instead of the profile's own.")]
SetOption = Annotated[
    list[str], typer.Option("--set", metavar="PATH=VALUE", help="Set a value of the profile, such as cpu.count=8.")
]


class RenderFormat(StrEnum):
    """How a command line is printed."""

    SHELL = "shell"
    JSON = "json"
    LINES = "lines"
    EXPLAIN = "explain"


class GuestTypeName(StrEnum):
    """The types of guest."""

    NONE = "none"
    SEV = "sev"
    SEV_ES = "sev-es"
    SEV_SNP = "sev-snp"


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    for command in (check, render, schema, init, policy, host):
        app.command()(command)


def check(
    profiles: Annotated[list[Path], typer.Argument(help="Profiles.", autocompletion=profile_files)],
    overrides: SetOption = [],  # noqa: B006 - typer reads the default
    output: FormatOption = Format.TEXT,
) -> None:
    """Check profiles; print every mistake with its line and column. Exit 1 if there is any."""
    from sevlaunch.profile.loader import load

    results: list[dict[str, Any]] = []
    for profile in profiles:
        try:
            load(profile, overrides=overrides)
        except ProfileError as error:
            results.append(
                {"profile": str(profile), "ok": False, "problems": [asdict(found) for found in error.problems]}
            )
            if output is Format.TEXT:
                print(error)
        else:
            results.append({"profile": str(profile), "ok": True, "problems": []})
            if output is Format.TEXT:
                print(f"{profile}: ok")
    if output is Format.JSON:
        print_json(results)
    if not all(result["ok"] for result in results):
        raise typer.Exit(1)


def render(
    profile: ProfileArgument,
    host: Annotated[Path | None, typer.Option("--host", help="Render for the host saved in this file.")] = None,
    name: NameOption = None,
    overrides: SetOption = [],  # noqa: B006 - typer reads the default
    rehearse: Annotated[bool, typer.Option("--rehearse", help="As a rehearsal would start it.")] = False,
    output: Annotated[RenderFormat, typer.Option("--format", help="How to print it.")] = RenderFormat.SHELL,
) -> None:
    """Print the QEMU command line of a profile, for this host or another one."""
    from sevlaunch.host.model import load_host
    from sevlaunch.host.probe import probe_host
    from sevlaunch.plan import resolve
    from sevlaunch.plan.formats import format_plan
    from sevlaunch.profile.loader import load

    loaded = load(profile, overrides=overrides, name=name)
    plan = resolve(loaded, load_host(host) if host else probe_host(loaded.profile.qemu.binary), rehearse=rehearse)
    if output is not RenderFormat.EXPLAIN:
        for warning in plan.warnings:
            note(f"sevlaunch: warning: {warning}")
    print(format_plan(plan, output.value))


def schema(output: FormatOption = Format.JSON) -> None:
    """Print the JSON Schema of profiles, for editors."""
    from sevlaunch.profile.schema import profile_schema

    print_json(profile_schema())


def init(
    file: Annotated[Path, typer.Argument(help="The profile to write.")],
    guest_type: Annotated[GuestTypeName, typer.Option("--type", help="The type of guest.")] = GuestTypeName.SEV,
    output: FormatOption = Format.TEXT,
) -> None:
    """Write a commented starting profile."""
    from sevlaunch.profile.template import starting_profile

    try:
        with file.open("x") as stream:
            stream.write(starting_profile(guest_type.value))
    except FileExistsError as error:
        raise UsageError(f"{file} exists already", hint="name another file, or remove this one") from error
    except OSError as error:
        raise UsageError(f"can't write {file}: {error.strerror}") from error
    if output is Format.JSON:
        print_json({"profile": str(file), "type": guest_type.value})
    else:
        print(f"{file} written; start it with: sevlaunch up {file}")


def policy(
    value: Annotated[str, typer.Argument(help="A number such as 0x33, or names such as no-debug,sev.")],
    snp: Annotated[bool, typer.Option("--snp", help="A SEV-SNP policy.")] = False,
    output: FormatOption = Format.TEXT,
) -> None:
    """Show a guest policy as number and as names, with the meaning of each bit."""
    from sevlaunch.profile.policy import SEV_POLICY, SNP_POLICY, describe_policy, parse_policy

    policy_format = SNP_POLICY if snp else SEV_POLICY
    try:
        number = parse_policy(value, policy_format)
    except ValueError as error:
        raise UsageError(str(error)) from error
    names = describe_policy(number, policy_format)
    if output is Format.JSON:
        print_json({"policy": number, "hex": f"{number:#x}", "names": names})
        return
    print(f"{number:#x} = {number} ({policy_format.title})")
    for name in names:
        meaning = policy_format.meanings.get(name, "minimum version of the platform's firmware")
        bit = policy_format.bits.get(name)
        print(f"  {'bit ' + str(bit.bit_length() - 1) if bit else '':<7} {name:<20} {meaning}")


def host(
    qemu: Annotated[str, typer.Option("--qemu", help="The QEMU binary to ask.")] = "auto",
    output: FormatOption = Format.JSON,
) -> None:
    """Print what this machine offers as JSON, for `render --host` and `doctor --host`."""
    from sevlaunch.host.probe import probe_host

    print(probe_host(qemu, thorough=True).to_json())
