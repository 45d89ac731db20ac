"""The command import: a libvirt domain becomes a profile."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from sevlaunch.cli.failures import note
from sevlaunch.cli.output import Format, FormatOption, print_document, print_json, say
from sevlaunch.errors import UsageError

if TYPE_CHECKING:
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
    """Turn a libvirt domain into a profile; tell what did not come along. Exit 1 if it can't be started so."""
    from sevlaunch.files import read_bounded
    from sevlaunch.libvirt.document import MAX_BYTES, read_domain
    from sevlaunch.libvirt.domain import import_domain
    from sevlaunch.libvirt.general import emulator

    if profile is not None and profile.exists():
        raise UsageError(f"{profile} exists already", hint="name another file, or remove this one")
    name = "standard input" if str(domain) == "-" else str(domain)
    root = read_domain(read_bounded(domain, "the domain", MAX_BYTES), file=name)
    imported = import_domain(
        root,
        file=name,
        profile=str(profile or ("guest.yaml" if str(domain) == "-" else domain.with_suffix(".yaml"))),
        base=profile.absolute().parent if profile else None,
        machines=_machines(host, emulator(root)),
    )
    if profile is not None:
        _write(profile, imported.text)
    if output is Format.JSON:
        print_json(_as_json(imported, profile))
    elif profile is None:
        print_document(imported.text)
        for line in _report(imported, name):
            note(line)
    else:
        say(f"{profile} written", *_report(imported, name))
    if not imported.works or (strict and imported.lost):
        raise typer.Exit(1)


def _machines(host: Path | None, emulator: str) -> list[str] | None:
    """The machine types of the QEMU that is to run the guest; None where they are not known."""
    from sevlaunch.errors import HostError
    from sevlaunch.host.model import Host
    from sevlaunch.host.qemu import find_binary, qemu_facts

    if host is not None:
        saved = Host.load(host).qemu
        return list(saved.machines) if saved else None
    # A program that a stranger's XML names is not asked: that would be to run it.
    if emulator != "auto":
        return None
    try:
        return list(qemu_facts(find_binary()).machines)
    except HostError:
        return None


def _write(profile: Path, text: str) -> None:
    try:
        with profile.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        raise UsageError(f"can't write {profile}: {error.strerror}") from error


def _as_json(imported: Imported, profile: Path | None) -> dict[str, Any]:
    return {
        "profile": str(profile) if profile else None,
        "name": imported.name,
        "ok": imported.works,
        "lost": len(imported.lost),
        "counts": imported.counts,
        "outcomes": msgspec.to_builtins(imported.outcomes),
        "problems": [problem._asdict() for problem in imported.problems],
        "text": imported.text,
    }


def _report(imported: Imported, file: str) -> list[str]:
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
    lines += [f"the profile is refused: {problem}" for problem in imported.problems]
    lines.append(", ".join(f"{count} {kind}" for kind, count in imported.counts.items()))
    return lines


def _lines(outcomes: list[Outcome]) -> str:
    numbers = list(dict.fromkeys(outcome.line for outcome in outcomes))
    shown = ",".join(map(str, numbers[:_SHOWN_LINES]))
    return shown if len(numbers) <= _SHOWN_LINES else f"{shown} and {len(numbers) - _SHOWN_LINES} more"
