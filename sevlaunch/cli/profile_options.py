"""The options that several commands about profiles have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sevlaunch.cli.complete import profile_files

ProfileArgument = Annotated[Path, typer.Argument(help="A profile.", autocompletion=profile_files)]
NameOption = Annotated[str | None, typer.Option("--name", help="A name for the guest instead of the profile's own.")]
SetOption = Annotated[
    list[str], typer.Option("--set", metavar="PATH=VALUE", help="Set a value of the profile, such as cpu.count=8.")
]
FreshOption = Annotated[
    bool,
    typer.Option("--fresh", help="Remove first what earlier runs have left: overlays of images, NVRAM, TPM state."),
]
OfflineOption = Annotated[
    bool, typer.Option("--offline", help="Fetch no images: refuse where the profile names one that is not here.")
]
