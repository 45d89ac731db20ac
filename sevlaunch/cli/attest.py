"""`attest`: ask a guest for its attestation report over a new nonce, and check it."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sevlaunch.cli.complete import guest_names
from sevlaunch.cli.failures import note
from sevlaunch.cli.output import Format, FormatOption, progress
from sevlaunch.cli.owner import report_options as asked
from sevlaunch.cli.spread import spread
from sevlaunch.cli.ssh import KeyOption, UserOption
from sevlaunch.errors import UsageError


class ByName(StrEnum):
    """The ways into a guest."""

    SSH = "ssh"
    AGENT = "agent"


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("attest")(spread(attest))


def attest(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A guest.", autocompletion=guest_names)],
    given: asked.ReportOptions,
    arguments: Annotated[
        list[str], typer.Argument(metavar="[-- ARGUMENT...]", help="The arguments of --then's program.")
    ] = [],  # noqa: B006 - typer reads the default
    by: Annotated[
        ByName | None, typer.Option("--by", help="How to ask. Default: SSH (vsock, too), else the guest agent.")
    ] = None,
    then: Annotated[
        str | None,
        typer.Option(
            "--then",
            metavar="PROGRAM",
            help="On a yes alone: become this program, in no shell, with SEVLAUNCH_GUEST, SEVLAUNCH_REPORT (the "
            "report's file) and SEVLAUNCH_NONCE in its environment.",
        ),
    ] = None,
    nonce: Annotated[
        Path | None, typer.Option("--nonce", metavar="FILE", help="64 bytes of somebody else's, instead of new ones.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FILE", help="Keep the report, with its certificates, here.")
    ] = None,
    user: UserOption = None,
    key: KeyOption = None,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds for the guest's answer.", min=0.1)] = 60.0,
    output: FormatOption = Format.TEXT,
) -> None:
    """Ask an SEV-SNP guest for its attestation report over a new nonce, and check it as `owner report` does.

    Exit 0 only if every check says yes, 1 if one says no. By default the guest's own profile says what digest and
    policy have to be. The host that runs the guest asks here: for an owner elsewhere its answer is a test, and no
    proof; he asks from his own machine, see `owner request`.
    """
    import shutil

    from sevlaunch.cli import interrupt
    from sevlaunch.cli.owner.report_answer import show_answer, why_not
    from sevlaunch.files import NewFile, read_blob, write_new
    from sevlaunch.flows.attest import expected_of_guest, fetch_report
    from sevlaunch.owner.report import verify_report
    from sevlaunch.owner.report_file import require_no_rehearsal
    from sevlaunch.sevapi.report import REPORT_DATA_BYTES

    program = shutil.which(then) if then is not None else None
    if then is not None and program is None:
        raise UsageError(f"--then: there is no program {then}", hint="name one by its path")
    if arguments and then is None:
        raise UsageError("arguments without a program", hint="--then PROGRAM -- ARGUMENT...")
    known = read_blob(nonce, "nonce", (REPORT_DATA_BYTES,)) if nonce else None
    expected = asked.read_expected(given)
    if expected is None and given.digest is None and not given.any_digest:
        expected = expected_of_guest(name)
    with progress(f"asking {name} for its report"):
        fetched = interrupt.run(
            fetch_report(name, by=by.value if by else None, nonce=known, user=user, key=key, limit=timeout)
        )
    if report:
        write_new([NewFile(report, fetched.file.read_bytes())])
    kept = report or fetched.file
    wanted = asked.read_wanted(given, expected, report_data=fetched.nonce)
    wanted.require_asked()
    require_no_rehearsal(fetched.report, allowed=given.rehearsal)
    found, trust = asked.read_trust(given, fetched.report, kept)
    verdict = verify_report(found.content, found.certificates, wanted, trust)
    asked.require_readable(verdict, found)
    more = {"name": name, "by": fetched.by, "nonce": fetched.nonce.hex(), "file": str(kept)}
    show_answer(verdict, why_not(given, expected, verdict), given, output, more)
    note("sevlaunch: note: asked on the host that runs the guest: for an owner elsewhere this is a test, not a proof")
    if not verdict.verified:
        raise typer.Exit(1)
    if program is not None:
        from sevlaunch.guest.ssh import become

        os.environ |= {
            "SEVLAUNCH_GUEST": name,
            "SEVLAUNCH_REPORT": str(kept.absolute()),
            "SEVLAUNCH_NONCE": fetched.nonce.hex(),
        }
        become([program, *arguments])
