"""`sevlaunch owner secret`."""

from __future__ import annotations

import base64
from pathlib import Path
from shlex import join
from typing import Annotated

import typer

from sevlaunch.cli.failures import note
from sevlaunch.cli.output import Format, FormatOption, print_json, say
from sevlaunch.cli.owner.verify import RehearsalOption, TikOption


def register(owner: typer.Typer) -> None:
    """Add the command to ``owner``."""
    owner.command("secret")(secret)


def secret(
    evidence: Annotated[Path, typer.Option("--evidence", metavar="FILE", help="The evidence that was verified.")],
    tik: TikOption,
    tek: Annotated[Path, typer.Option("--tek", metavar="FILE", help="Transport encryption key of the session.")],
    secrets: Annotated[
        list[str],
        typer.Option("--secret", metavar="GUID:FILE", help="A secret; luks:FILE for a LUKS passphrase; - is stdin."),
    ],
    header: Annotated[Path, typer.Option("--header", metavar="FILE", help="The packet's header, to be written.")],
    payload: Annotated[Path, typer.Option("--payload", metavar="FILE", help="The packet's payload, to be written.")],
    firmware: Annotated[
        Path | None, typer.Option("--firmware", metavar="FILE", help="To see that the secrets fit into its area.")
    ] = None,
    rehearsal: RehearsalOption = False,
    output: FormatOption = Format.TEXT,
) -> None:
    """Wrap secrets for one launch, that `sevlaunch inject` hands in. Verify the launch first."""
    from sevlaunch.files import NewFile, read_blob, write_new
    from sevlaunch.owner.claims import read_claims
    from sevlaunch.owner.firmware import read_firmware
    from sevlaunch.owner.secret import check_injectable, make_packet, read_secret
    from sevlaunch.owner.verify import REHEARSAL, check_verifiable
    from sevlaunch.sevapi.session import KEY_BYTES, TransportKeys

    claims = read_claims(evidence)
    check_injectable(claims)
    check_verifiable(claims.sev.type, claims, rehearsal=rehearsal)
    keys = TransportKeys(tek=read_blob(tek, "TEK", (KEY_BYTES,)), tik=read_blob(tik, "TIK", (KEY_BYTES,)))
    wanted = [read_secret(text) for text in secrets]
    image = read_firmware(firmware) if firmware else None
    packet = make_packet(wanted, keys, claims.measure, firmware=image)
    write_new(
        [
            NewFile(header, base64.b64encode(packet.header), secret=True),
            NewFile(payload, base64.b64encode(packet.payload), secret=True),
        ]
    )
    if claims.rehearsal:
        note(f"sevlaunch: {REHEARSAL}")
    if output is Format.JSON:
        print_json(
            {
                "name": claims.name,
                "rehearsal": claims.rehearsal,
                "secrets": [str(one.guid) for one in wanted],
                "header": str(header),
                "payload": str(payload),
                "payload_bytes": len(packet.payload),
            }
        )
        return
    say(f"{len(wanted)} secret{'s' if len(wanted) > 1 else ''} for {claims.name}: {header}, {payload}")
    command = ("sevlaunch", "inject", claims.name, "--header", str(header), "--payload", str(payload))
    say(f"on the host: {join(command)}")
