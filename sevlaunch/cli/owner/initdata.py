"""`owner initdata`: the document that a guest gets, and what its report has to show of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sevlaunch.cli.complete import profile_files
from sevlaunch.cli.output import Format, FormatOption, print_document, print_json
from sevlaunch.cli.profile_options import SetOption


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("initdata")(initdata)


def initdata(
    profile: Annotated[Path, typer.Argument(help="A profile with init-data.", autocompletion=profile_files)],
    overrides: SetOption = [],  # noqa: B006 - typer reads the default
    output: FormatOption = Format.TEXT,
) -> None:
    """Print the init-data of a profile, as `owner report --initdata` takes it: what the guest gets, to the byte.

    With --format json, also the digest, and HOST_DATA, which the guest's report has to show.
    """
    from sevlaunch.errors import UsageError
    from sevlaunch.image.initdata import initdata_document
    from sevlaunch.profile.initdata_values import parse_initdata
    from sevlaunch.profile.loader import load

    loaded = load(profile, overrides=overrides)
    if loaded.profile.initdata is None:
        raise UsageError(f"{profile} has no init-data", hint="set initdata: FILE, or initdata: {bind: [first_boot]}")
    document = initdata_document(loaded.profile)
    if output is Format.TEXT:
        print_document(document.decode())
        return
    found = parse_initdata(document)
    print_json(
        {
            "algorithm": found.algorithm,
            "digest": found.digest.hex(),
            "host_data": found.host_data.hex(),
            "data": found.data,
            "document": document.decode(),
        }
    )
