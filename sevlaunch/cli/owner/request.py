"""`owner request`: a new nonce, and a script with which a guest answers with a report over it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def register(owner: typer.Typer) -> None:
    """Add the command to ``owner``."""
    owner.command("request")(request)


def request(
    nonce: Annotated[Path, typer.Argument(metavar="NONCE", help="The file for a new nonce of 64 bytes.")],
) -> None:
    """Print a script that a SEV-SNP guest runs as root, with a shell alone, to answer with a report over a new nonce.

    The nonce goes into a new file, for `owner report --nonce`. The answer is the report, with the host's certificates
    behind it where there are some: ssh root@GUEST sh -s < SCRIPT > REPORT.
    """
    from sevlaunch.files import NewFile, write_new
    from sevlaunch.owner.request import new_nonce, request_script

    content = new_nonce()
    write_new([NewFile(nonce, content)])
    sys.stdout.write(request_script(content))
