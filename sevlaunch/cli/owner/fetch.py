"""`owner fetch`: certificates and revocation list for a report, from AMD."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sevlaunch.cli.failures import note
from sevlaunch.cli.output import Format, FormatOption, print_json, say


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("fetch")(fetch)


def fetch(
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where to put them, for --certs of `report`.")],
    file: Annotated[Path | None, typer.Argument(help="The report, as for `owner report`.", show_default=False)] = None,
    chip_id: Annotated[
        str, typer.Option("--chip-id", metavar="HEX", help="Without a report: the processor's identity, with --tcb.")
    ] = "",
    tcb: Annotated[
        str, typer.Option("--tcb", metavar="TCB", help="With --chip-id: the TCB that its reports are signed for.")
    ] = "",
    generation: Annotated[
        str, typer.Option("--generation", metavar="NAME", help="Milan, Genoa, ...: reports before version 3 don't say.")
    ] = "",
    store: Annotated[
        Path | None,
        typer.Option(
            "--trustee-store", metavar="FOLDER", help="Put the VCEK there, too, as trustee's OfflineStore has it."
        ),
    ] = None,
    mirror: Annotated[
        str | None, typer.Option("--mirror", metavar="URL", help="A server that has AMD's files, instead of AMD's own.")
    ] = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Fetch AMD's certificates and revocation list for a report of an SNP guest.

    It asks https://kdsintf.amd.com, which learns which processor the guest runs on. Nothing is believed: `owner report`
    checks all of it. A VLEK is the host's alone to fetch: of one there are chain and list. Before a guest runs, a
    processor's VCEK can be had by --chip-id, --tcb and --generation.
    """
    from sevlaunch.errors import UsageError
    from sevlaunch.flows.fetching_keys import fetch_keys
    from sevlaunch.owner.key_service import key_of_chip, key_of_report
    from sevlaunch.owner.report_file import read_report
    from sevlaunch.owner.report_wanted import parse_tcb
    from sevlaunch.sevapi.constants import KEY_SERVICE

    if (file is None) == (not chip_id) or bool(chip_id) != bool(tcb):
        raise UsageError("wanted a report, or --chip-id with --tcb and --generation", hint="give one of the two")
    if file is not None:
        key = key_of_report(read_report(file).content, generation)
    else:
        try:
            identity, numbers = bytes.fromhex(chip_id), parse_tcb(tcb, "--tcb")
        except ValueError as error:
            hint = "--chip-id HEX --tcb boot_loader=4,tee=0,snp=24,microcode=219"
            raise UsageError(f"--chip-id, --tcb: {error}", hint=hint) from error
        key = key_of_chip(identity, numbers, generation)
    found = fetch_keys(
        key,
        out,
        server=mirror or KEY_SERVICE,
        store=store,
        told=lambda text: note(f"sevlaunch: {text}"),
    )
    if output is Format.JSON:
        print_json({"files": {str(path): url for path, url in found.items()}})
        return
    say(*(f"{path}: {url}" for path, url in found.items()))
