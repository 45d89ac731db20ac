"""`owner session`: a launch session for one platform and policy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sevlaunch.cli.failures import note
from sevlaunch.cli.output import Format, FormatOption, print_json, say


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("session")(session)


def session(
    pdh: Annotated[Path, typer.Option("--pdh", help="The platform's PDH certificate, or an exported chain.")],
    policy: Annotated[str, typer.Option("--policy", help="The guest's policy: 0x33, or names such as no-debug,sev.")],
    chain: Annotated[
        Path | None, typer.Option("--chain", help="PEK, OCA and CEK, as `sevlaunch host --pdh` writes them.")
    ] = None,
    ca: Annotated[list[Path], typer.Option("--ca", metavar="FILE", help="AMD's ASK and ARK, and the signed CEK.")] = [],  # noqa: B006 - typer reads the default
    root: Annotated[Path | None, typer.Option("--root", help="The only ARK to trust, instead of AMD's.")] = None,
    out: Annotated[str, typer.Option("--out", metavar="PREFIX", help="What the files' names begin with.")] = "vm",
    output: FormatOption = Format.TEXT,
) -> None:
    """Make the keys and files for one launch, from the platform's PDH.

    PREFIX_godh.b64 and PREFIX_session.b64 go to the host, into the profile's dh_cert and session. PREFIX_tik.bin and
    PREFIX_tek.bin are secret and stay here. Nothing is overwritten.

    Certificates are SEV certificates, one or several in a file, raw, in base64 or in hexadecimal. With a chain, each
    step up to AMD's root is checked and shown; exit 1, and nothing is written, if one fails. With neither chain nor
    AMD's keys (--ca) nothing proves that the PDH is a processor's: that is said, and the files are written.
    """
    from sevlaunch.cli.owner.checks import checks_json, print_checks
    from sevlaunch.errors import UsageError
    from sevlaunch.owner.chain import Chain, read_root, read_sev_certificates, verify_chain
    from sevlaunch.owner.session import make_session, write_session
    from sevlaunch.profile.policy import SEV_POLICY, parse_policy, policy_warnings

    try:
        number = parse_policy(policy, SEV_POLICY)
    except ValueError as error:
        raise UsageError(f"--policy: {error}") from error
    found = [*read_sev_certificates(pdh, "PDH")]
    for what, file in (("chain", chain), *(("ca", file) for file in ca)):
        if file is not None:
            found += read_sev_certificates(file, what)
    given = Chain.of(found)
    if given.pdh is None:
        raise UsageError(f"PDH: {pdh} has no PDH certificate", hint="export it with `sevlaunch host --pdh FILE`")
    trusted = read_root(root) if root else None
    verdict = None if given.is_bare and not ca and trusted is None else verify_chain(given, root=trusted)
    if verdict and output is Format.TEXT:
        print_checks(verdict.checks)
    # Who gives AMD's keys, or a root, wants the proof.
    refused = verdict is not None and (verdict.failed or (bool(ca or trusted) and not verdict.verified))
    files = {} if refused else write_session(make_session(given.pdh, number), out)
    if output is Format.JSON:
        print_json(
            {
                "ok": not refused,
                "policy": number,
                "verified": bool(verdict and verdict.verified),
                "checks": checks_json(verdict.checks) if verdict else [],
                "files": {name: str(path) for name, path in files.items()},
            }
        )
    if refused:
        note("sevlaunch: the chain does not verify: nothing was written")
        raise typer.Exit(1)
    for warning in policy_warnings(number, SEV_POLICY):
        note(f"sevlaunch: warning: {warning}")
    if not (verdict and verdict.verified):
        note("sevlaunch: warning: nothing proves that this PDH is an AMD processor's: give --chain and AMD's --ca")
    if output is Format.TEXT:
        say(f"for the host:     {files['godh']}  {files['session']}")
        say(f"secret, for you:  {files['tik']}  {files['tek']}")
