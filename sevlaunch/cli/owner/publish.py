"""`owner publish`: a launch made known to a trustee."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sevlaunch.cli.output import Format, FormatOption, print_json, say
from sevlaunch.cli.owner.reference_values import ValuesOptions, read_values
from sevlaunch.cli.spread import spread
from sevlaunch.errors import UsageError

_OWN = "own"
_MAX_BYTES = 1 << 20


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("publish")(spread(publish))


def publish(
    given: ValuesOptions,
    kbs: Annotated[str, typer.Option("--kbs", metavar="URL", help="The address of the KBS: https://HOST:PORT.")],
    admin_token: Annotated[
        Path | None,
        typer.Option("--admin-token", metavar="FILE", help="Its administrator's token; nobody else may read the file."),
    ] = None,
    attestation_policy: Annotated[
        str | None,
        typer.Option(
            "--attestation-policy",
            metavar="own|FILE",
            help="Also a policy in rego; own: that of `reference-values --format rego`, in place of the values.",
        ),
    ] = None,
    resource_policy: Annotated[
        Path | None, typer.Option("--resource-policy", metavar="FILE", help="Also who gets resources, in rego.")
    ] = None,
    resources: Annotated[
        list[str],
        typer.Option(
            "--resource", metavar="REPO/TYPE/TAG=FILE", help="Also a resource, such as a key. Several may be."
        ),
    ] = [],  # noqa: B006 - typer reads the default
    ca: Annotated[
        Path | None, typer.Option("--ca", metavar="FILE", help="The authority of the server's certificate, in PEM.")
    ] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Take a connection that is not encrypted.")] = False,
    output: FormatOption = Format.TEXT,
) -> None:
    """Register the reference values of a SEV-SNP launch with a trustee, and what else is named.

    In this order: values, attestation policy, resource policy, resources. At the first that it does not take this ends.
    Everything that is sent replaces what the service had of that name.
    """
    from sevlaunch.files import read_bounded
    from sevlaunch.flows.publishing import publish as send
    from sevlaunch.owner.kbs import publications, read_token
    from sevlaunch.owner.rego import rego_policy
    from sevlaunch.owner.trustee import trustee_values

    values = read_values(given)
    if given.expires is not None:
        raise UsageError("--expires has no place in a message to RVPS, which gives them 12 months", hint="leave it out")
    policy = _text(Path(attestation_policy)) if attestation_policy not in (None, _OWN) else None
    contents = {}
    for text in resources:
        name, equals, file = text.partition("=")
        if not equals or not file:
            raise UsageError(f"--resource: wanted REPO/TYPE/TAG=FILE, found {text!r}")
        contents[name] = read_bounded(Path(file), "--resource", _MAX_BYTES)
    own = attestation_policy == _OWN
    requests = publications(
        values=None if own else trustee_values(values),
        attestation_policy=rego_policy(values) if own else policy,
        resource_policy=_text(resource_policy) if resource_policy else None,
        resources=contents,
    )
    token = read_token(admin_token) if admin_token else ""
    done: list[str] = []
    try:
        for one in send(kbs, requests, token=token, authority=ca, insecure=insecure):
            done.append(one.what)
            if output is Format.TEXT:
                say(f"{one.what}: taken by {kbs}")
    finally:
        if output is Format.JSON:
            print_json({"kbs": kbs, "published": done, "complete": len(done) == len(requests)})


def _text(file: Path) -> str:
    from sevlaunch.files import read_bounded

    try:
        return read_bounded(file, "policy", _MAX_BYTES).decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"policy: {file} is no text in UTF-8: {error.reason}", hint="is it another file?") from error
