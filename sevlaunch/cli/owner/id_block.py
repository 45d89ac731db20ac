"""`owner id-block`: what a SEV-SNP guest has to be, signed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sevlaunch.cli.output import Format, FormatOption, print_json, say


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("id-block")(id_block)


def id_block(
    digest: Annotated[str, typer.Option("--digest", metavar="HEX", help="The launch digest, 48 bytes.")],
    policy: Annotated[str, typer.Option("--policy", help="The guest's policy: the block's must be the same.")],
    id_key: Annotated[
        Path | None,
        typer.Option("--id-key", help="Private key on P-384 that signs the block; nobody else may read it."),
    ] = None,
    anonymous: Annotated[
        bool,
        typer.Option(
            "--anonymous", help="A fixed signature, whose key nobody has: as the profile's id_block: anonymous."
        ),
    ] = False,
    author_key: Annotated[
        Path | None, typer.Option("--author-key", help="Private key on P-384 that signs the ID key.")
    ] = None,
    family_id: Annotated[str, typer.Option("--family-id", metavar="HEX", help="Your name for it, 16 bytes.")] = "",
    image_id: Annotated[str, typer.Option("--image-id", metavar="HEX", help="Your name for it, 16 bytes.")] = "",
    guest_svn: Annotated[
        int, typer.Option("--guest-svn", min=0, max=0xFFFFFFFF, help="Security version number of the guest.")
    ] = 0,
    out: Annotated[str, typer.Option("--out", metavar="PREFIX", help="What the files' names begin with.")] = "vm",
    output: FormatOption = Format.TEXT,
) -> None:
    """Sign an ID block: the secure processor then launches only a guest of this digest and policy.

    PREFIX_id_block.b64 and PREFIX_id_auth.b64 go into the profile's id_block and id_auth; with an author key, set
    author_key_enabled there. Nothing is overwritten. The digests of the keys are what the guest's reports will show.
    """
    from sevlaunch.cli.owner.options import hexadecimal
    from sevlaunch.errors import UsageError
    from sevlaunch.owner.id_block import anonymous_id_block, read_private_key, sign_id_block, write_id_block
    from sevlaunch.profile.policy import SNP_POLICY, parse_policy
    from sevlaunch.sevapi.id_block import IdBlock

    try:
        number = parse_policy(policy, SNP_POLICY)
    except ValueError as error:
        raise UsageError(f"--policy: {error}") from error
    launch = hexadecimal("--digest", digest, 48)
    if anonymous == (id_key is not None):
        raise UsageError("wanted --id-key or --anonymous", hint="give one of them")
    if anonymous and (author_key or family_id or image_id or guest_svn):
        raise UsageError(
            "an anonymous block is the same for all: it takes no author key, no names and no SVN", hint="leave them out"
        )
    block = IdBlock(
        digest=launch,
        policy=number,
        family_id=hexadecimal("--family-id", family_id, 16) if family_id else bytes(16),
        image_id=hexadecimal("--image-id", image_id, 16) if image_id else bytes(16),
        guest_svn=guest_svn,
    )
    author = read_private_key(author_key, "author key") if author_key else None
    if id_key:
        signed = sign_id_block(block, read_private_key(id_key, "ID key"), author)
    else:
        signed = anonymous_id_block(launch, number)
    files = write_id_block(signed, out)
    if output is Format.JSON:
        print_json(
            {
                "files": {name: str(path) for name, path in files.items()},
                "policy": number,
                "id_key_digest": signed.id_key_digest.hex(),
                "author_key_digest": signed.author_key_digest.hex(),
            }
        )
        return
    say(f"for the profile's id_block:  {files['id_block']}")
    say(f"for the profile's id_auth:   {files['id_auth']}")
    say(f"ID key digest:               {signed.id_key_digest.hex()}")
    if author:
        say(f"author key digest:           {signed.author_key_digest.hex()}")
        say("set author_key_enabled: true in the profile")
