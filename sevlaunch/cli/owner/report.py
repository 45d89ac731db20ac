"""`owner report`: is this SEV-SNP attestation report genuine, and that of the guest I want?"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from sevlaunch.cli.failures import note
from sevlaunch.cli.output import Format, FormatOption, print_json, say


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("report")(report)


def report(
    file: Annotated[Path, typer.Argument(help="A report: raw, in base64 or hexadecimal, or evidence in JSON.")],
    certs: Annotated[
        Path | None, typer.Option("--certs", metavar="DIR", help="A folder with VCEK or VLEK, ASK or ASVK, and ARK.")
    ] = None,
    digest: Annotated[str | None, typer.Option("--digest", metavar="HEX", help="The launch digest, 48 bytes.")] = None,
    policy: Annotated[str | None, typer.Option("--policy", help="The exact policy.")] = None,
    host_data: Annotated[str | None, typer.Option("--host-data", metavar="HEX", help="32 bytes.")] = None,
    report_data: Annotated[
        str | None, typer.Option("--report-data", metavar="HEX", help="64 bytes: what the guest was asked to put in.")
    ] = None,
    id_key_digest: Annotated[str | None, typer.Option("--id-key-digest", metavar="HEX", help="48 bytes.")] = None,
    author_key_digest: Annotated[
        str | None, typer.Option("--author-key-digest", metavar="HEX", help="48 bytes.")
    ] = None,
    min_tcb: Annotated[
        str | None,
        typer.Option(
            "--min-tcb",
            metavar="NAME=N,...",
            help="The least version numbers of reported and launch TCB: boot_loader, tee, snp, microcode, fmc.",
        ),
    ] = None,
    vmpl: Annotated[int | None, typer.Option("--vmpl", min=0, max=3, help="The level that asked for it.")] = None,
    allow_debug: Annotated[bool, typer.Option("--allow-debug", help="Take a policy that allows debugging.")] = False,
    root: Annotated[
        Path | None, typer.Option("--root", metavar="FILE", help="The only ARK to trust, instead of AMD's.")
    ] = None,
    at: Annotated[
        datetime | None, typer.Option("--at", help="When the certificates have to be in force (UTC), instead of now.")
    ] = None,
    rehearsal: Annotated[
        bool, typer.Option("--rehearsal", help="Take an emulated processor's report and root.")
    ] = False,
    output: FormatOption = Format.TEXT,
) -> None:
    """Check an attestation report and its certificates. Exit 0 only if every check says yes, 1 if one says no.

    Certificates are X.509, in DER or PEM, with whatever file names; AMD's roots are known. AMD's revocation lists are
    not looked at. What is not asked for is not compared, and is named: without --digest any guest is right.
    """
    from datetime import UTC

    from sevlaunch.cli.owner.checks import checks_json, print_checks
    from sevlaunch.cli.owner.options import optional_hexadecimal
    from sevlaunch.errors import UsageError
    from sevlaunch.owner.endorsement import root_fingerprint
    from sevlaunch.owner.report import Trust, WantedReport, parse_tcb, report_fields, verify_report
    from sevlaunch.owner.report_file import read_report, require_no_rehearsal
    from sevlaunch.owner.x509_files import read_certificate_folder, read_certificates
    from sevlaunch.profile.policy import SNP_POLICY, parse_policy

    try:
        wanted = WantedReport(
            digest=optional_hexadecimal("--digest", digest, 48),
            policy=parse_policy(policy, SNP_POLICY) if policy is not None else None,
            host_data=optional_hexadecimal("--host-data", host_data, 32),
            report_data=optional_hexadecimal("--report-data", report_data, 64),
            id_key_digest=optional_hexadecimal("--id-key-digest", id_key_digest, 48),
            author_key_digest=optional_hexadecimal("--author-key-digest", author_key_digest, 48),
            min_tcb=parse_tcb(min_tcb) if min_tcb is not None else {},
            vmpl=vmpl,
            allow_debug=allow_debug,
        )
        trusted = root_fingerprint(read_certificates(root, "root")) if root else None
    except ValueError as error:
        raise UsageError(str(error)) from error
    found = read_report(file)
    require_no_rehearsal(found, allowed=rehearsal)
    certificates = found.certificates
    if certs is not None:
        folder = read_certificate_folder(certs)
        certificates = folder.certificates
        for skipped in folder.skipped:
            note(f"sevlaunch: not a certificate: {skipped}")
    elif not certificates:
        raise UsageError("wanted certificates for the report", hint="give --certs DIR")
    moment = at.replace(tzinfo=UTC) if at else datetime.now(UTC)
    verdict = verify_report(found.content, certificates, wanted, Trust(at=moment, root=trusted, rehearsal=rehearsal))
    if output is Format.JSON:
        print_json(
            {
                "ok": verdict.verified,
                "rehearsal": rehearsal,
                "generation": verdict.generation,
                "checks": checks_json(verdict.checks),
                "not_compared": list(verdict.not_compared),
                "report": report_fields(verdict),
            }
        )
    else:
        print_checks(verdict.checks)
        if verdict.not_compared:
            say(f"not compared, as not asked for: {', '.join(verdict.not_compared)}")
        mark = "REHEARSAL, which proves nothing: " if rehearsal else ""
        say(f"{mark}{'yes: every check holds' if verdict.verified else 'no: a check fails'}")
    if not verdict.verified:
        raise typer.Exit(1)
