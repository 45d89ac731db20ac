"""The command doctor: what this machine can do, why not, and how to fix it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sevlaunch.cli.complete import profile_files
from sevlaunch.cli.output import Format, FormatOption, print_json, say
from sevlaunch.cli.profile_options import SetOption
from sevlaunch.errors import UsageError
from sevlaunch.guest_type import GuestType

if TYPE_CHECKING:
    from sevlaunch.doctor.examination import Report
    from sevlaunch.doctor.tree import Finding
    from sevlaunch.host.model import Host

# What stands before a finding, also where there is no colour.
_MARKS = {"ok": "ok  ", "failed": "FAIL", "warning": "warn", "skipped": "skip", "unknown": "?   "}


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("doctor")(doctor)


def doctor(
    profile: Annotated[
        Path | None,
        typer.Option("--for", metavar="PROFILE", help="Check for this profile.", autocompletion=profile_files),
    ] = None,
    overrides: SetOption = [],  # noqa: B006 - typer reads the default
    guest_type: Annotated[GuestType | None, typer.Option("--type", help="Check for this type of guest alone.")] = None,
    host_file: Annotated[
        Path | None, typer.Option("--host", metavar="FILE", help="Check the host saved in this file.")
    ] = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Check what this machine can run; tell what is missing and how to fix it. Exit 1 if it is not fit.

    Fit is for --type, or for the guest of --for; without either, for any encrypted guest.
    """
    from sevlaunch.doctor.examination import examine
    from sevlaunch.host.model import Host

    if profile is not None:
        if guest_type is not None:
            raise UsageError("--for and --type can't go together", hint="the profile says the type")
        from sevlaunch.doctor.fitness import examine_for
        from sevlaunch.flows.hosts import host_for
        from sevlaunch.profile.loader import load

        loaded = load(profile, overrides=overrides)
        host = host_for(loaded.profile, host_file, thorough=True)
        report = examine_for(loaded, host, here=host_file is None)
    else:
        if overrides:
            raise UsageError("--set changes a profile, and there is none", hint="name it: --for PROFILE")
        host = Host.load(host_file) if host_file else Host.probe(thorough=True)
        report = examine(host, guest_type.value if guest_type else None)
    if output is Format.JSON:
        print_json(
            {
                "fit": report.is_fit,
                "type": report.purpose,
                "fit_for": report.fit,
                "profile": str(profile) if profile else None,
                "hostname": host.hostname,
                "kernel": host.kernel,
                "checks": [finding.to_dict() for finding in report.findings],
            }
        )
    else:
        say(*_lines(report, host))
    if not report.is_fit:
        raise typer.Exit(1)


def _lines(report: Report, host: Host) -> Iterator[str]:
    yield f"{host.hostname}: Linux {host.kernel}, user {host.user}"
    for finding in report.findings:
        yield from _tree(finding, 0)
    unseen = [finding for top in report.findings for finding in top.walk() if finding.result == "unknown"]
    by_root = [finding for finding in unseen if finding.root]
    if unseen:
        told = "root sees more of" if by_root else "could not be looked at"
        yield f"{told}: {', '.join(finding.title for finding in by_root or unseen)}"
    if report.purpose is not None:
        yield f"{'fit' if report.is_fit else 'NOT fit'} for {report.purpose}"
        return
    yield f"fit for: {', '.join(name for name, fit in report.fit.items() if fit) or 'nothing'}"
    unfit = [name for name, fit in report.fit.items() if not fit]
    if unfit:
        yield f"NOT fit for: {', '.join(unfit)}"


def _tree(finding: Finding, depth: int) -> Iterator[str]:
    indent = "  " * depth
    yield f"{_MARKS[finding.result]} {indent}{finding.title}: {finding.found}"
    if finding.result in ("failed", "warning"):
        if finding.why:
            yield f"     {indent}  why: {finding.why}"
        if finding.remedy:
            yield f"     {indent}  do:  {finding.remedy}"
    for child in finding.children:
        yield from _tree(child, depth + 1)
