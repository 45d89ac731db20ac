"""The command import: a libvirt domain becomes a profile."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sevlaunch.cli.failures import note
from sevlaunch.cli.output import Format, FormatOption, print_document, print_json, say
from sevlaunch.errors import Problem, UsageError

if TYPE_CHECKING:
    from sevlaunch.host.model import Host
    from sevlaunch.libvirt.domain import Imported
    from sevlaunch.libvirt.outcomes import Outcome

# Where the same happened to more elements, the rest is counted.
_SHOWN_LINES = 8


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("import")(import_)


def import_(
    domain: Annotated[Path, typer.Argument(metavar="DOMAIN.xml", help="A domain of libvirt; - is standard input.")],
    profile: Annotated[Path | None, typer.Option("-o", "--out", metavar="FILE", help="The profile to write.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 if anything of the domain is lost.")] = False,
    host: Annotated[Path | None, typer.Option("--host", help="Import for the host saved in this file.")] = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Turn a libvirt domain into a profile; tell what did not come along. Exit 1 if it can't be started so.

    With --host, what that host lacks for it counts, too; without, what this machine lacks is told.
    """
    from sevlaunch.files import read_bounded
    from sevlaunch.libvirt.document import MAX_BYTES, read_domain
    from sevlaunch.libvirt.domain import import_domain
    from sevlaunch.libvirt.general import emulator

    if profile is not None and profile.exists():
        raise UsageError(f"{profile} exists already", hint="name another file, or remove this one")
    name = "standard input" if str(domain) == "-" else str(domain)
    root = read_domain(read_bounded(domain, "the domain", MAX_BYTES), file=name)
    known = _known_host(host, emulator(root))
    file = str(profile or ("guest.yaml" if str(domain) == "-" else domain.with_suffix(".yaml")))
    base = profile.absolute().parent if profile else None
    machines = list(known.qemu.machines) if known and known.qemu else None
    imported = import_domain(root, file=name, profile=file, base=base, machines=machines)
    lacking: tuple[Problem, ...] = ()
    if known and not imported.problems:
        from sevlaunch.flows.importing import unmet

        lacking = unmet(imported, known, profile=file, base=base)
    works = imported.works and not (host and lacking)
    if profile is not None:
        _write(profile, imported.text)
    if output is Format.JSON:
        print_json(_as_json(imported, profile, lacking, works=works))
    elif profile is None:
        print_document(imported.text)
        for line in _report(imported, name, lacking, host):
            note(line)
    else:
        say(f"{profile} written", *_report(imported, name, lacking, host))
    if not works or (strict and imported.lost):
        raise typer.Exit(1)


def _known_host(host: Path | None, emulator: str) -> Host | None:
    """The host that is to run the guest: a saved one, or this machine; None where that can't be told."""
    from sevlaunch.host.model import Host

    if host is not None:
        return Host.load(host)
    # A program that a stranger's XML names is not asked: that would be to run it.
    return Host.probe() if emulator == "auto" else None


def _write(profile: Path, text: str) -> None:
    try:
        with profile.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        raise UsageError(f"can't write {profile}: {error.strerror}") from error


def _as_json(imported: Imported, profile: Path | None, lacking: Sequence[Problem], *, works: bool) -> dict[str, Any]:
    return {
        "profile": str(profile) if profile else None,
        "name": imported.name,
        "ok": works,
        "lost": len(imported.lost),
        "counts": imported.counts,
        "outcomes": imported.outcomes,
        "problems": [problem._asdict() for problem in imported.problems],
        "lacking": [problem._asdict() for problem in lacking],
        "text": imported.text,
    }


def _report(imported: Imported, file: str, lacking: Sequence[Problem], host: Path | None) -> list[str]:
    """What people want to know: all but what was carried, the same reasons together; then the numbers."""
    from sevlaunch.libvirt.reasons import Kind

    groups: dict[tuple[Kind, str, str], list[Outcome]] = {}
    for outcome in imported.outcomes:
        if outcome.kind is not Kind.CARRIED:
            element = outcome.element if outcome.kind is not Kind.DROPPED else outcome.element.rpartition("/")[2]
            groups.setdefault((outcome.kind, element, outcome.reason), []).append(outcome)
    lines = []
    for kind in (Kind.DROPPED, Kind.CORRECTED, Kind.UNSUPPORTED, Kind.REFUSED):
        for (found, element, reason), outcomes in groups.items():
            if found is kind:
                lines.append(f"{file}:{_lines(outcomes)}: {kind}: {element}: {reason}")
    lines += [f"needs you: {problem}" for problem in imported.problems]
    lines += [f"needs you on {host or 'this machine'}: {problem}" for problem in lacking]
    lines.append(", ".join(f"{count} {kind}" for kind, count in imported.counts.items()))
    return lines


def _lines(outcomes: list[Outcome]) -> str:
    numbers = list(dict.fromkeys(outcome.line for outcome in outcomes))
    shown = ",".join(map(str, numbers[:_SHOWN_LINES]))
    return shown if len(numbers) <= _SHOWN_LINES else f"{shown} and {len(numbers) - _SHOWN_LINES} more"
