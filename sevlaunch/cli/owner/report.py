"""`owner report`: is this SEV-SNP attestation report genuine, and that of the guest I want?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sevlaunch.cli.output import Format, FormatOption
from sevlaunch.cli.owner import report_options as asked
from sevlaunch.cli.spread import spread


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("report")(spread(report))


def report(
    file: Annotated[
        Path,
        typer.Argument(
            help="A report as a guest, a host or a collector wrote it; trustee's JSON and go-sev-guest's message, too."
        ),
    ],
    given: asked.ReportOptions,
    report_data: Annotated[
        str | None, typer.Option("--report-data", metavar="HEX", help="64 bytes: the nonce that the guest was sent.")
    ] = None,
    nonce: Annotated[
        Path | None, typer.Option("--nonce", metavar="FILE", help="A file with them, as `owner request` wrote it.")
    ] = None,
    any_report_data: Annotated[
        bool, typer.Option("--any-report-data", help="Take a report of any time, made for anybody.")
    ] = False,
    claims: Annotated[
        bool, typer.Option("--claims", help="Print its claims as trustee's policies see them, and check nothing.")
    ] = False,
    output: FormatOption = Format.TEXT,
) -> None:
    """Check an attestation report and its certificates. Exit 0 only if every check says yes, 1 if one says no.

    What can't be read is never a no: exit 7, for a report, or for a certificate that is lacking because of it.

    Asked for are the guest (--profile, --lock or --digest), its policy, and the nonce that it was sent, so that the
    report is no old one (--nonce or --report-data). Without one of them the answer would prove nothing, exit 9: each
    can be waived by name. With --profile or --lock, what would have to be otherwise is searched for when the digest
    differs.

    Certificates are X.509, in DER or PEM, with whatever file names; AMD's roots are known.
    """
    from sevlaunch.cli.owner.options import optional_hexadecimal
    from sevlaunch.cli.owner.report_answer import print_claims, show_answer, why_not
    from sevlaunch.errors import UsageError
    from sevlaunch.files import read_blob
    from sevlaunch.owner.report import verify_report
    from sevlaunch.owner.report_file import read_report, require_no_rehearsal
    from sevlaunch.sevapi.report import REPORT_DATA_BYTES

    if nonce and report_data is not None:
        raise UsageError("--nonce and --report-data say the same twice", hint="give one of them")
    data = optional_hexadecimal("--report-data", report_data, REPORT_DATA_BYTES)
    if nonce:
        data = read_blob(nonce, "nonce", (REPORT_DATA_BYTES,))
    found = read_report(file)
    if claims:
        asked.require_nothing_asked(given, (report_data, nonce, any_report_data))
        require_no_rehearsal(found, allowed=given.rehearsal)
        print_claims(found)
        return
    expected = asked.read_expected(given)
    wanted = asked.read_wanted(given, expected, report_data=data, any_report_data=any_report_data)
    require_no_rehearsal(found, allowed=given.rehearsal)
    found, trust = asked.read_trust(given, found, file)
    verdict = verify_report(found.content, found.certificates, wanted, trust)
    asked.require_readable(verdict, found)
    show_answer(verdict, why_not(given, expected, verdict), given, output)
    if not verdict.verified:
        raise typer.Exit(1)
