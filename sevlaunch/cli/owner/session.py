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
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Make a session for a platform that AMD does not vouch for.")
    ] = False,
    out: Annotated[str, typer.Option("--out", metavar="PREFIX", help="What the files' names begin with.")] = "vm",
    output: FormatOption = Format.TEXT,
) -> None:
    """Make the keys and files for one launch, from the platform's PDH.

    PREFIX_godh.b64 and PREFIX_session.b64 go to the host, into the profile's dh_cert and session. PREFIX_tik.bin and
    PREFIX_tek.bin are secret and stay here, with PREFIX_platform.json, which notes which root vouched for the platform:
    `verify` and `secret` ask for it. Nothing is overwritten.

    Certificates are SEV certificates, one or several in a file, raw, in base64 or in hexadecimal. Each step from the
    PDH up to AMD's root is checked and shown; exit 1, and nothing is written, if one fails; exit 9 if some are missing
    or the root is not AMD's: then nothing proves that the PDH is a processor's, unless you say --insecure.
    """
    from sevlaunch.cli.owner.checks import checks_json, print_checks
    from sevlaunch.errors import InsecureUse, UsageError
    from sevlaunch.owner.chain import Chain, read_root, read_sev_certificates, verify_chain
    from sevlaunch.owner.platform import PlatformNote
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
    verdict = verify_chain(given, root=trusted)
    if output is Format.TEXT:
        print_checks(verdict.checks)
    vouched = PlatformNote(root=verdict.root)
    # A root that nobody knows is no mistake in the chain, unless another one was named.
    refused = any(check.ok is False for check in verdict.checks if trusted or check.name != "root")
    written = not refused and (verdict.is_amds or insecure)
    files = write_session(make_session(given.pdh, number), out, root=vouched.root) if written else {}
    if output is Format.JSON:
        print_json(
            {
                "ok": written,
                "policy": number,
                "verified": verdict.verified,
                "vouched_by": {"root": vouched.root, "amd": vouched.is_amds},
                "checks": checks_json(verdict.checks),
                "files": {name: str(path) for name, path in files.items()},
            }
        )
    if refused:
        note("sevlaunch: the chain does not verify: nothing was written")
        raise typer.Exit(1)
    if not written:
        raise InsecureUse(
            f"the PDH is vouched for by {vouched}, not by AMD: nothing proves that it is an AMD processor's, and no "
            "session was made",
            hint="give --chain and AMD's --ca; for a rehearsal, or to try it out: --insecure",
        )
    for warning in policy_warnings(number, SEV_POLICY):
        note(f"sevlaunch: warning: {warning}")
    if not verdict.is_amds:
        note("sevlaunch: warning: nothing proves that this PDH is an AMD processor's: it is a session for an exercise")
    if output is Format.TEXT:
        say(f"for the host:     {files['godh']}  {files['session']}")
        say(f"secret, for you:  {files['tik']}  {files['tek']}")
        say(f"vouched for by:   {vouched}  {files['platform']}")
