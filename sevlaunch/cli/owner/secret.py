"""`sevlaunch owner secret`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sevlaunch.cli.failures import note
from sevlaunch.cli.output import Format, FormatOption, print_json
from sevlaunch.cli.owner import session_files as session


def register(owner: typer.Typer) -> None:
    """Add the command to ``owner``."""
    owner.command("secret")(secret)


def secret(
    evidence: Annotated[Path, typer.Option("--evidence", metavar="FILE", help="The evidence that was verified.")],
    tik: session.TikOption,
    tek: Annotated[Path, typer.Option("--tek", metavar="FILE", help="Transport encryption key of the session.")],
    secrets: Annotated[
        list[str],
        typer.Option("--secret", metavar="GUID:FILE", help="A secret; luks:FILE for a LUKS passphrase; - is stdin."),
    ],
    header: session.HeaderOption = None,
    payload: session.PayloadOption = None,
    firmware: Annotated[
        Path | None, typer.Option("--firmware", metavar="FILE", help="To see that the secrets fit into its area.")
    ] = None,
    verdict: session.VerdictOption = None,
    unverified: Annotated[
        bool,
        typer.Option("--unverified", help="Wrap for a launch that nobody verified: whoever made it gets the secret."),
    ] = False,
    platform: session.PlatformOption = None,
    root: session.RootOption = None,
    rehearsal: session.RehearsalOption = False,
    output: FormatOption = Format.TEXT,
) -> None:
    """Wrap secrets for the launch that `owner verify` said yes to, for `sevlaunch inject`.

    It asks for the answer of verify, for this very measurement. `owner verify --secret` does both in one step.
    """
    from sevlaunch.errors import UsageError
    from sevlaunch.files import read_blob
    from sevlaunch.owner import answer
    from sevlaunch.owner.claims import read_claims
    from sevlaunch.owner.firmware import read_firmware
    from sevlaunch.owner.sealed import beside
    from sevlaunch.owner.secret import check_injectable, make_packet, read_secret
    from sevlaunch.owner.verify import REHEARSAL, check_verifiable
    from sevlaunch.sevapi.session import KEY_BYTES, TransportKeys

    if verdict and unverified:
        raise UsageError("--verdict and --unverified contradict each other", hint="give one of them")
    claims = read_claims(evidence)
    check_injectable(claims)
    check_verifiable(claims.sev.type, claims, rehearsal=rehearsal)
    keys = TransportKeys(tek=read_blob(tek, "TEK", (KEY_BYTES,)), tik=read_blob(tik, "TIK", (KEY_BYTES,)))
    session.vouched_for(claims, tik, keys.tik, platform=platform, root=root, rehearsal=rehearsal)
    if unverified:
        note(f"sevlaunch: warning: nobody verified the launch of {claims.name}: whoever made it gets the secret")
    else:
        answer.require_verified(verdict or beside(tik, answer.FILE_NAME), claims, keys.tik)
    wanted = [read_secret(text) for text in secrets]
    image = read_firmware(firmware) if firmware else None
    packet = make_packet(wanted, keys, claims.measure, firmware=image)
    written = session.write_packet(packet, wanted, tik, header, payload)
    if claims.rehearsal:
        note(f"sevlaunch: {REHEARSAL}")
    if output is Format.JSON:
        print_json(
            {
                "name": claims.name,
                "rehearsal": claims.rehearsal,
                "verified": not unverified,
                **written.to_dict(),
            }
        )
    else:
        written.show(claims)
