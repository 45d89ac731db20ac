"""`owner fetch`: certificates and revocation list for a report, from AMD."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sevlaunch.cli.output import Format, FormatOption, print_json, say


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("fetch")(fetch)


def fetch(
    file: Annotated[Path, typer.Argument(help="The report, as for `owner report`.")],
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where to put them, for --certs of `report`.")],
    generation: Annotated[
        str, typer.Option("--generation", metavar="NAME", help="Milan, Genoa, ...: reports before version 3 don't say.")
    ] = "",
    mirror: Annotated[
        str | None, typer.Option("--mirror", metavar="URL", help="A server that has AMD's files, instead of AMD's own.")
    ] = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Fetch AMD's certificates and revocation list for a report of an SNP guest.

    It asks https://kdsintf.amd.com, which learns which processor the guest runs on. Nothing is believed: `owner report`
    checks all of it. A VLEK is the host's alone to fetch: of one there are chain and list.
    """
    from sevlaunch.flows.fetching_keys import fetch_keys
    from sevlaunch.owner.report_file import read_report
    from sevlaunch.sevapi.constants import KEY_SERVICE

    report = read_report(file)
    found = fetch_keys(report.content, out, generation=generation, server=mirror or KEY_SERVICE)
    if output is Format.JSON:
        print_json({"files": {str(path): url for path, url in found.items()}})
        return
    say(*(f"{path}: {url}" for path, url in found.items()))
