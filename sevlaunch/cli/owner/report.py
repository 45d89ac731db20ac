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
    file: Annotated[
        Path, typer.Argument(help="A report, or extended report: raw, in base64 or hexadecimal; or evidence in JSON.")
    ],
    certs: Annotated[
        Path | None,
        typer.Option(
            "--certs",
            metavar="PATH",
            help="A folder or file with VCEK or VLEK, ASK or ASVK, and ARK; or a host's table.",
        ),
    ] = None,
    crl: Annotated[
        list[Path],
        typer.Option("--crl", metavar="FILE", help="AMD's revocation list: the chain has to be covered by it."),
    ] = [],  # noqa: B006 - typer reads the default
    lock: Annotated[
        Path | None,
        typer.Option(
            "--lock", metavar="FILE", help="A launch lock file: digest, policy, host data and the ID block's keys."
        ),
    ] = None,
    digest: Annotated[str | None, typer.Option("--digest", metavar="HEX", help="The launch digest, 48 bytes.")] = None,
    any_digest: Annotated[bool, typer.Option("--any-digest", help="Take any guest.")] = False,
    policy: Annotated[str | None, typer.Option("--policy", help="The exact policy.")] = None,
    any_policy: Annotated[
        bool, typer.Option("--any-policy", help="Take any policy that does not allow debugging.")
    ] = False,
    report_data: Annotated[
        str | None, typer.Option("--report-data", metavar="HEX", help="64 bytes: the nonce that the guest was sent.")
    ] = None,
    any_report_data: Annotated[
        bool, typer.Option("--any-report-data", help="Take a report of any time, made for anybody.")
    ] = False,
    host_data: Annotated[str | None, typer.Option("--host-data", metavar="HEX", help="32 bytes.")] = None,
    initdata: Annotated[
        Path | None,
        typer.Option("--initdata", metavar="FILE", help="Init-data, whose digest the host data has to be."),
    ] = None,
    id_key_digest: Annotated[str | None, typer.Option("--id-key-digest", metavar="HEX", help="48 bytes.")] = None,
    author_key_digest: Annotated[
        str | None, typer.Option("--author-key-digest", metavar="HEX", help="48 bytes.")
    ] = None,
    family_id: Annotated[str | None, typer.Option("--family-id", metavar="HEX", help="16 bytes.")] = None,
    image_id: Annotated[str | None, typer.Option("--image-id", metavar="HEX", help="16 bytes.")] = None,
    chip_id: Annotated[
        str | None,
        typer.Option("--chip-id", metavar="HEX", help="The only processor to take: 64 bytes, 8 since Turin."),
    ] = None,
    min_guest_svn: Annotated[int | None, typer.Option("--min-guest-svn", min=0, max=0xFFFFFFFF)] = None,
    min_tcb: Annotated[
        str | None,
        typer.Option(
            "--min-tcb",
            metavar="NAME=N,...",
            help="The least version numbers of reported and launch TCB: boot_loader, tee, snp, microcode, fmc; or the "
            "whole TCB as 0x and 16 digits.",
        ),
    ] = None,
    min_abi: Annotated[
        str | None, typer.Option("--min-abi", metavar="MAJOR.MINOR", help="Of the current and the committed firmware.")
    ] = None,
    platform: Annotated[
        str | None,
        typer.Option(
            "--platform",
            metavar="NAME,...",
            help="What PLATFORM_INFO has to say, such as alias-check-complete,ecc,no-smt.",
        ),
    ] = None,
    mitigations: Annotated[
        str | None,
        typer.Option("--mitigations", metavar="HEX", help="Bits that launch and current mitigation vector must have."),
    ] = None,
    report_id_ma: Annotated[
        str | None, typer.Option("--report-id-ma", metavar="HEX", help="The migration agent's report id, 32 bytes.")
    ] = None,
    no_migration_agent: Annotated[
        bool, typer.Option("--no-migration-agent", help="The policy must allow none, and there must be none.")
    ] = False,
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

    Asked for are the guest (--digest), its policy (--policy), and the nonce that it was sent, so that the report is no
    old one (--report-data). Without one of them the answer would prove nothing, exit 9: each can be waived by name.

    Certificates are X.509, in DER or PEM, with whatever file names; AMD's roots are known.
    """
    from datetime import UTC

    from sevlaunch.cli.owner.checks import checks_json, print_checks
    from sevlaunch.cli.owner.options import number, optional_hexadecimal, version
    from sevlaunch.errors import UsageError
    from sevlaunch.owner.endorsement import root_fingerprint
    from sevlaunch.owner.initdata import read_initdata_file
    from sevlaunch.owner.lock import read_lock
    from sevlaunch.owner.locked_report import report_of_lock
    from sevlaunch.owner.report import Trust, report_fields, report_lines, verify_report
    from sevlaunch.owner.report_file import read_report, require_no_rehearsal
    from sevlaunch.owner.report_wanted import ASKED, WantedReport, parse_platform, parse_tcb, waiver_of
    from sevlaunch.owner.x509_files import read_certificate_folder, read_certificates, read_revocations
    from sevlaunch.profile.policy import SNP_POLICY, parse_policy

    if lock and [digest, policy, host_data, initdata, id_key_digest, author_key_digest] != [None] * 6:
        raise UsageError("a lock file says everything about a launch", hint="leave out what describes it, or --lock")
    locked = report_of_lock(read_lock(lock)) if lock else WantedReport()
    if initdata and host_data is not None:
        raise UsageError("--initdata and --host-data say the same twice", hint="give one of them")
    waived = {"digest": any_digest, "policy": any_policy, "report_data": any_report_data}
    try:
        wanted = WantedReport(
            digest=locked.digest or optional_hexadecimal("--digest", digest, 48),
            policy=parse_policy(policy, SNP_POLICY) if policy is not None else locked.policy,
            host_data=read_initdata_file(initdata).host_data
            if initdata
            else locked.host_data or optional_hexadecimal("--host-data", host_data, 32),
            report_data=optional_hexadecimal("--report-data", report_data, 64),
            id_key_digest=locked.id_key_digest or optional_hexadecimal("--id-key-digest", id_key_digest, 48),
            author_key_digest=locked.author_key_digest
            or optional_hexadecimal("--author-key-digest", author_key_digest, 48),
            family_id=optional_hexadecimal("--family-id", family_id, 16),
            image_id=optional_hexadecimal("--image-id", image_id, 16),
            chip_id=optional_hexadecimal("--chip-id", chip_id, 8, 64),
            report_id_ma=optional_hexadecimal("--report-id-ma", report_id_ma, 32),
            min_guest_svn=min_guest_svn,
            min_tcb=parse_tcb(min_tcb) if min_tcb is not None else {},
            min_abi=version("--min-abi", min_abi) if min_abi is not None else None,
            platform=parse_platform(platform) if platform is not None else {},
            mitigations=number("--mitigations", mitigations, 64) or 0,
            vmpl=vmpl,
            no_migration_agent=no_migration_agent,
            allow_debug=allow_debug,
            waived=frozenset(name for name, wanted in waived.items() if wanted),
        )
        trusted = root_fingerprint(read_certificates(root, "root")) if root else None
    except ValueError as error:
        raise UsageError(str(error)) from error
    for name in wanted.waived:
        if getattr(wanted, name) is not None:
            option = ASKED[name]
            raise UsageError(f"{option} and {waiver_of(option)} contradict each other", hint="give one of them")
    revocations = [each for one in crl for each in read_revocations(one)]
    found = read_report(file)
    require_no_rehearsal(found, allowed=rehearsal)
    certificates, skipped = found.certificates, found.skipped
    revocations += found.revocations
    if certs is not None:
        given = read_certificate_folder(certs)
        certificates, skipped = given.certificates, (*skipped, *given.skipped)
        revocations += given.revocations
    elif not certificates:
        raise UsageError("wanted certificates for the report", hint="give --certs PATH")
    for text in skipped:
        note(f"sevlaunch: not a certificate: {text}")
    moment = at.replace(tzinfo=UTC) if at else datetime.now(UTC)
    trust = Trust(at=moment, root=trusted, rehearsal=rehearsal, revocations=tuple(revocations))
    verdict = verify_report(found.content, certificates, wanted, trust)
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
        say("the report says:", *(f"  {name:<16} {value}" for name, value in report_lines(verdict)))
        if verdict.not_compared:
            say(f"not compared, as not asked for: {', '.join(verdict.not_compared)}")
        mark = "REHEARSAL, which proves nothing: " if rehearsal else ""
        say(f"{mark}{'yes: every check holds' if verdict.verified else 'no: a check fails'}")
    if not verdict.verified:
        raise typer.Exit(1)
