"""What `owner report` and `attest` have in common: what is asked of a report, and its answer."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from sevlaunch.cli.failures import note
from sevlaunch.cli.owner import options as launch
from sevlaunch.cli.profile_options import SetOption
from sevlaunch.errors import UsageError

if TYPE_CHECKING:
    from sevlaunch.owner.collected import ReportFile
    from sevlaunch.owner.expected_report import Expected
    from sevlaunch.owner.report import ReportVerdict, Trust
    from sevlaunch.owner.report_wanted import WantedReport


# What a lock file says of a report.
_LOCKED = ("digest", "policy", "host_data", "id_key_digest", "author_key_digest")


class ReportOptions(NamedTuple):
    """The options, as the command line has them."""

    certs: Annotated[
        Path | None,
        typer.Option(
            "--certs",
            metavar="PATH",
            help="A folder or file with VCEK or VLEK, ASK or ASVK, and ARK; or a host's table.",
        ),
    ] = None
    crl: Annotated[
        list[Path],
        typer.Option("--crl", metavar="FILE", help="AMD's revocation list: the chain has to be covered by it."),
    ] = []  # noqa: RUF012 - typer reads the default
    profile: Annotated[
        Path | None,
        typer.Option("--profile", help="The profile that the launch must be of, which says digest and policy."),
    ] = None
    lock: Annotated[
        Path | None,
        typer.Option(
            "--lock", metavar="FILE", help="A launch lock file: digest, policy, host data and the ID block's keys."
        ),
    ] = None
    overrides: SetOption = []  # noqa: RUF012 - typer reads the default
    host: launch.HostOption = None
    firmware: launch.FirmwareOption = None
    tries: launch.TryOption = []  # noqa: RUF012 - typer reads the default
    digest: Annotated[str | None, typer.Option("--digest", metavar="HEX", help="The launch digest, 48 bytes.")] = None
    any_digest: Annotated[bool, typer.Option("--any-digest", help="Take any guest.")] = False
    policy: Annotated[str | None, typer.Option("--policy", help="The exact policy.")] = None
    policy_at_most: Annotated[
        str | None,
        typer.Option("--policy-at-most", help="A policy that allows no more than this one, and restricts no less."),
    ] = None
    any_policy: Annotated[bool, typer.Option("--any-policy", help="Take any policy that does not allow debugging.")] = (
        False
    )
    host_data: Annotated[str | None, typer.Option("--host-data", metavar="HEX", help="32 bytes.")] = None
    initdata: Annotated[
        Path | None,
        typer.Option("--initdata", metavar="FILE", help="Init-data, whose digest the host data has to be."),
    ] = None
    id_key_digest: Annotated[str | None, typer.Option("--id-key-digest", metavar="HEX", help="48 bytes.")] = None
    author_key_digest: Annotated[str | None, typer.Option("--author-key-digest", metavar="HEX", help="48 bytes.")] = (
        None
    )
    family_id: Annotated[str | None, typer.Option("--family-id", metavar="HEX", help="16 bytes.")] = None
    image_id: Annotated[str | None, typer.Option("--image-id", metavar="HEX", help="16 bytes.")] = None
    require_id_block: Annotated[bool, typer.Option("--require-id-block", help="The launch had an ID block.")] = False
    require_author_key: Annotated[bool, typer.Option("--require-author-key", help="The launch had an author key.")] = (
        False
    )
    chip_ids: Annotated[
        list[str],
        typer.Option("--chip-id", metavar="HEX", help="A processor to take, of these alone: 64 bytes, 8 since Turin."),
    ] = []  # noqa: RUF012 - typer reads the default
    min_guest_svn: Annotated[int | None, typer.Option("--min-guest-svn", min=0, max=0xFFFFFFFF)] = None
    min_tcb: Annotated[
        str | None,
        typer.Option(
            "--min-tcb",
            metavar="NAME=N,...",
            help="The least version numbers of reported and launch TCB: boot_loader, tee, snp, microcode, fmc; or the "
            "whole TCB as 0x and 16 digits.",
        ),
    ] = None
    min_committed_tcb: Annotated[
        str | None,
        typer.Option("--min-committed-tcb", metavar="NAME=N,...", help="The same of the committed TCB."),
    ] = None
    min_abi: Annotated[
        str | None,
        typer.Option(
            "--min-abi", metavar="MAJOR.MINOR[.BUILD]", help="Of the current and the committed firmware's version."
        ),
    ] = None
    platform: Annotated[
        str | None,
        typer.Option(
            "--platform",
            metavar="NAME,...",
            help="What PLATFORM_INFO has to say, such as alias-check-complete,ecc,no-smt.",
        ),
    ] = None
    mitigations: Annotated[
        str | None,
        typer.Option("--mitigations", metavar="HEX", help="Bits that launch and current mitigation vector must have."),
    ] = None
    report_id_ma: Annotated[
        str | None, typer.Option("--report-id-ma", metavar="HEX", help="The migration agent's report id, 32 bytes.")
    ] = None
    no_migration_agent: Annotated[
        bool, typer.Option("--no-migration-agent", help="The policy must allow none, and there must be none.")
    ] = False
    vmpl: Annotated[
        int | None, typer.Option("--vmpl", min=0, max=3, help="The privilege level that asked for it, else 0.")
    ] = None
    any_vmpl: Annotated[bool, typer.Option("--any-vmpl", help="Take any level of the guest's.")] = False
    require: Annotated[
        Path | None,
        typer.Option("--require", metavar="FILE", help="A file with such demands: sevlaunch schema requirements."),
    ] = None
    allow_debug: Annotated[bool, typer.Option("--allow-debug", help="Take a policy that allows debugging.")] = False
    root: Annotated[
        Path | None, typer.Option("--root", metavar="FILE", help="The only ARK to trust, instead of AMD's.")
    ] = None
    at: Annotated[
        datetime | None, typer.Option("--at", help="When the certificates have to be in force (UTC), instead of now.")
    ] = None
    rehearsal: Annotated[bool, typer.Option("--rehearsal", help="Take an emulated processor's report and root.")] = (
        False
    )


def read_wanted(
    given: ReportOptions, expected: Expected | None, *, report_data: bytes | None, any_report_data: bool = False
) -> WantedReport:
    """What the options ask of a report.

    :param expected: the launch that it has to be of, where one is named.
    :param report_data: the nonce, 64 bytes.
    :raise UsageError: when one is not what it should be, or two contradict each other.
    """
    from sevlaunch.cli.owner.options import hexadecimal, number, optional_hexadecimal
    from sevlaunch.owner.initdata import read_initdata_file
    from sevlaunch.owner.report_wanted import ASKED, WantedReport, parse_abi, parse_platform, parse_tcb, waiver_of
    from sevlaunch.profile.policy import SNP_POLICY, parse_policy

    if expected and given.digest is not None:
        raise UsageError("--digest says the same as --profile or --lock", hint="give one of them")
    if given.initdata and given.host_data is not None:
        raise UsageError("--initdata and --host-data say the same twice", hint="give one of them")
    waived = {"digest": given.any_digest, "policy": given.any_policy, "report_data": any_report_data}
    try:
        said: dict[str, Any] = {
            "digest": optional_hexadecimal("--digest", given.digest, 48),
            "policy": parse_policy(given.policy, SNP_POLICY) if given.policy is not None else None,
            "policy_at_most": parse_policy(given.policy_at_most, SNP_POLICY)
            if given.policy_at_most is not None
            else None,
            "host_data": read_initdata_file(given.initdata).host_data
            if given.initdata
            else optional_hexadecimal("--host-data", given.host_data, 32),
            "id_key_digest": optional_hexadecimal("--id-key-digest", given.id_key_digest, 48),
            "author_key_digest": optional_hexadecimal("--author-key-digest", given.author_key_digest, 48),
            "family_id": optional_hexadecimal("--family-id", given.family_id, 16),
            "image_id": optional_hexadecimal("--image-id", given.image_id, 16),
            "require_id_block": given.require_id_block or None,
            "require_author_key": given.require_author_key or None,
            "chip_ids": tuple(hexadecimal("--chip-id", one, 8, 64) for one in given.chip_ids) or None,
            "report_id_ma": optional_hexadecimal("--report-id-ma", given.report_id_ma, 32),
            "min_guest_svn": given.min_guest_svn,
            "min_tcb": parse_tcb(given.min_tcb) if given.min_tcb is not None else None,
            "min_committed_tcb": parse_tcb(given.min_committed_tcb, "--min-committed-tcb")
            if given.min_committed_tcb is not None
            else None,
            "min_abi": parse_abi(given.min_abi) if given.min_abi is not None else None,
            "platform": parse_platform(given.platform) if given.platform is not None else None,
            "mitigations": number("--mitigations", given.mitigations, 64),
            "vmpl": given.vmpl,
            "no_migration_agent": given.no_migration_agent or None,
            "allow_debug": given.allow_debug or None,
        }
    except ValueError as error:
        raise UsageError(str(error)) from error
    demands = {name: value for name, value in said.items() if value is not None}
    if given.any_vmpl:
        _only_once("--any-vmpl", "--vmpl", twice="vmpl" in demands)
        demands["vmpl"] = None
    if given.require:
        # It takes what profiles are read with.
        from sevlaunch.owner.requirements import read_requirements

        required = read_requirements(given.require).wanted()
        for name in required:
            _only_once(f"{given.require}: {name}", "--lock", twice=bool(given.lock) and name in _LOCKED)
            _only_once(f"{given.require}: {name}", "the command line", twice=name in demands)
        demands |= required
    if expected:
        _only_once("the digest of --require", "--profile or --lock", twice="digest" in demands)
        demands["digest"] = expected.digest
    wanted = WantedReport(
        report_data=report_data, waived=frozenset(name for name, one in waived.items() if one), **demands
    )
    for name in wanted.waived:
        option = ASKED[name]
        if getattr(wanted, name) is not None or (name == "policy" and wanted.policy_at_most is not None):
            raise UsageError(f"{option} and {waiver_of(option)} contradict each other", hint="give one of them")
    return expected.completing(wanted) if expected else wanted


def require_nothing_asked(given: ReportOptions, more: tuple[object, ...]) -> None:
    """Make sure that no option asks for a check: where none is made, it would be ignored.

    :param more: what further options say.
    :raise UsageError: when one does.
    """
    asked = [
        name
        for name, default in ReportOptions._field_defaults.items()
        if getattr(given, name) != default and name != "rehearsal"
    ]
    if asked or any(more):
        options = ", ".join(f"--{name.replace('_', '-')}" for name in asked) or "a nonce"
        raise UsageError(f"--claims checks nothing, and {options} asks for a check", hint="leave one of them out")


def _only_once(one: str, other: str, *, twice: bool) -> None:
    if twice:
        raise UsageError(f"{one} and {other} say the same twice", hint="leave one of them out")


def read_expected(given: ReportOptions) -> Expected | None:
    """The launch that a report has to be of, by the profile or the lock file that the options name.

    :raise UsageError: when they contradict each other, or a file can't be read.
    """
    from sevlaunch.owner.expected_report import expected_of_lock, expected_of_setup
    from sevlaunch.owner.lock import read_lock
    from sevlaunch.owner.setup import Options

    if given.lock:
        keys = (given.id_key_digest, given.author_key_digest)
        said = (given.digest, given.policy, given.host_data, given.initdata, *keys)
        if given.profile or given.overrides or given.host or any(one is not None for one in said):
            raise UsageError(
                "a lock file says everything about a launch", hint="leave out what describes it, or --lock"
            )
        return expected_of_lock(read_lock(given.lock), given.firmware)
    if given.profile is None:
        if given.overrides or given.host or given.firmware:
            raise UsageError("--set, --host and --firmware need a profile", hint="name one: --profile FILE")
        return None
    setup, named = launch.resolve_options(
        given.profile, given.overrides, given.host, Options(firmware=given.firmware, policy=given.policy)
    )
    return expected_of_setup(setup, named)


def read_trust(given: ReportOptions, found: ReportFile, file: Path) -> tuple[ReportFile, Trust]:
    """The report with the certificates that it is checked with, and what is trusted.

    :param file: where the report is.
    :raise UsageError: when there are none, or a file can't be read.
    """
    from datetime import UTC

    from msgspec.structs import replace

    from sevlaunch.owner.endorsement import endorsements, root_fingerprint
    from sevlaunch.owner.lacking import lacking_key
    from sevlaunch.owner.report import Trust
    from sevlaunch.owner.x509_files import read_certificate_folder, read_certificates, read_revocations

    try:
        trusted = root_fingerprint(read_certificates(given.root, "root")) if given.root else None
    except ValueError as error:
        raise UsageError(str(error)) from error
    revocations = [each for one in given.crl for each in read_revocations(one)]
    if given.certs is not None:
        more = read_certificate_folder(given.certs)
        # A folder says which keys are taken; one that has issuers alone leaves that to what came with the report.
        came = () if endorsements(more.certificates) else found.certificates
        found = replace(found, certificates=(*came, *more.certificates), skipped=(*found.skipped, *more.skipped))
        revocations += more.revocations
    elif not found.certificates:
        lacks = lacking_key(found.content, [])
        why = f"it lacks the {lacks[0]}" if lacks else "no key has signed it"
        raise UsageError(
            f"wanted certificates for the report {file}; {why}",
            hint=f"AMD has them: sevlaunch owner fetch {file} --out keys; then --certs keys",
        )
    for text in found.skipped:
        note(f"sevlaunch: not a certificate: {text}")
    moment = given.at.replace(tzinfo=UTC) if given.at else datetime.now(UTC)
    lists = (*revocations, *found.revocations)
    return found, Trust(at=moment, root=trusted, rehearsal=given.rehearsal, revocations=lists)


def require_readable(verdict: ReportVerdict, found: ReportFile) -> None:
    """Make sure that no answer is a no because a file could not be read.

    :raise EvidenceError: when the check lacks what such a file may have.
    """
    from sevlaunch.errors import EvidenceError, Problem

    if verdict.lacks and found.skipped:
        raise EvidenceError(
            f"the report can't be checked without the {' and '.join(lack.name for lack in verdict.lacks)}, which may "
            f"be in what could not be read:",
            problems=[Problem(text) for text in found.skipped],
            hint=f"give these files whole, or fetch the {verdict.lacks[0]}",
        )
