"""`owner reference-values`: what a verifier has to know of the launches that its owner allows."""

from __future__ import annotations

import sys
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from sevlaunch.cli.output import print_document, print_json, say
from sevlaunch.cli.owner import options as launch
from sevlaunch.cli.profile_options import SetOption
from sevlaunch.cli.spread import spread
from sevlaunch.errors import UsageError

if TYPE_CHECKING:
    from sevlaunch.owner.reference_values import AllowedLaunch, Platform, ReferenceValues


class ValuesFormat(StrEnum):
    """Who they are for."""

    TRUSTEE = "trustee"
    RVPS = "rvps"
    CORIM = "corim"
    CONTRAST = "contrast"
    REGO = "rego"
    JSON = "json"


# The options that only some formats have a place for.
_PLACES = {
    "--name": (ValuesFormat.TRUSTEE, ValuesFormat.RVPS, ValuesFormat.JSON),
    "--expires": (ValuesFormat.TRUSTEE, ValuesFormat.CORIM, ValuesFormat.JSON),
    "--svn": (ValuesFormat.CORIM,),
}


class ValuesOptions(NamedTuple):
    """Which launches, and which platforms."""

    profile: launch.ProfileOption = None
    overrides: SetOption = []  # noqa: RUF012 - typer reads the default
    host: launch.HostOption = None
    locks: Annotated[
        list[Path],
        typer.Option("--lock", metavar="FILE", help="A launch lock file, or several: each launch is allowed."),
    ] = []  # noqa: RUF012 - typer reads the default
    firmware: launch.FirmwareOption = None
    vcpus: Annotated[
        str | None,
        typer.Option("--vcpus", metavar="RANGES", help="The numbers of vCPUs that are allowed: 1-8, or 1,2,4."),
    ] = None
    report: Annotated[
        Path | None,
        typer.Option(
            "--report", metavar="FILE", help="A report of such a platform, checked before: its TCB and PLATFORM_INFO."
        ),
    ] = None
    tcbs: Annotated[
        list[str],
        typer.Option(
            "--tcb", metavar="NAME=N,...", help="A reported TCB that is taken: boot_loader, tee, snp, microcode, fmc."
        ),
    ] = []  # noqa: RUF012 - typer reads the default
    platform: Annotated[
        str | None, typer.Option("--platform", metavar="NAME,...", help="What PLATFORM_INFO says, such as smt,no-tsme.")
    ] = None
    generation: Annotated[
        str,
        typer.Option(
            "--generation", metavar="NAME", help="Milan, Genoa, ...: for Contrast, and for a TCB in hexadecimal."
        ),
    ] = ""
    chip_ids: Annotated[
        list[str],
        typer.Option("--chip-id", metavar="HEX", help="A processor to take, of these alone: 64 bytes, 8 since Turin."),
    ] = []  # noqa: RUF012 - typer reads the default
    name: Annotated[
        str, typer.Option("--name", metavar="URI", help="Where they belong in RVPS: rvps:///github.com/OWNER/IMAGE:v1.")
    ] = ""
    expires: Annotated[
        datetime | None, typer.Option("--expires", help="Until when they hold (UTC); else for a year.")
    ] = None


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("reference-values")(spread(reference_values))


def reference_values(
    given: ValuesOptions,
    output: Annotated[ValuesFormat, typer.Option("--format", help="Whom they are for.")] = ValuesFormat.TRUSTEE,
    svn: Annotated[
        int | None,
        typer.Option("--svn", min=0, max=0xFFFFFFFF, help="CoRIM: the security version number of the launch."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="A new file for it, instead of printing.")
    ] = None,
) -> None:
    """Print what a verifier has to know of a SEV-SNP launch, so that it affirms this launch and no other.

    trustee: values by the names of its default policy, as its RVPS stores them. rvps: a message that registers them.
    rego: a policy that needs no values. contrast: the part ReferenceValues of a manifest. corim: CBOR, in the profile
    for launch measurements. The launches are a profile's or those of locks; the platform is what you say of it.
    """
    from sevlaunch.files import NewFile, write_new

    values = read_values(given)
    said = {"--name": bool(given.name), "--expires": given.expires is not None, "--svn": svn is not None}
    for option, formats in _PLACES.items():
        if said[option] and output not in formats:
            raise UsageError(f"{option} has no place in the format {output}", hint=f"it is for {', '.join(formats)}")
    document = _document(values, output, svn, expires=given.expires is not None)
    if out is not None:
        content = document if isinstance(document, bytes) else _text(document).encode()
        write_new([NewFile(out, content)])
        say(str(out))
    elif isinstance(document, bytes):
        if sys.stdout.isatty():
            raise UsageError("a CoRIM is binary, and this is a terminal", hint="--out FILE")
        sys.stdout.buffer.write(document)
    elif isinstance(document, str):
        print_document(document)
    else:
        print_json(document)


def read_values(given: ValuesOptions) -> ReferenceValues:
    """The launches and platforms that the options name.

    :raise UsageError: when there are none, or one is not what it should be.
    """
    from datetime import UTC, timedelta

    from sevlaunch.owner.reference_values import ReferenceValues
    from sevlaunch.owner.trustee import reference_name

    reference_name(given.name, "")
    moment = given.expires.replace(tzinfo=UTC) if given.expires else datetime.now(UTC) + timedelta(days=365)
    return ReferenceValues(_launches(given), _platform(given), moment, given.name)


def _launches(given: ValuesOptions) -> tuple[AllowedLaunch, ...]:
    from sevlaunch.owner.allowed_launches import launches_of_lock, launches_of_setup
    from sevlaunch.owner.lock import read_lock
    from sevlaunch.owner.setup import Options
    from sevlaunch.units import parse_ranges

    try:
        vcpus = parse_ranges(given.vcpus) if given.vcpus is not None else []
    except ValueError as error:
        raise UsageError(f"--vcpus: {error}") from error
    if given.vcpus is not None and not (vcpus and min(vcpus) >= 1 and max(vcpus) <= launch.MAX_VCPUS):
        raise UsageError(f"--vcpus: wanted numbers from 1 to {launch.MAX_VCPUS}, found {given.vcpus!r}")
    if given.locks:
        if given.profile or given.overrides or given.host:
            raise UsageError("a lock file says everything about a launch", hint="leave out the profile, or --lock")
        return tuple(
            one for file in given.locks for one in launches_of_lock(read_lock(file), str(file), vcpus, given.firmware)
        )
    if given.profile is None:
        raise UsageError("wanted a profile, or lock files", hint="PROFILE, or --lock FILE")
    setup, named = launch.resolve_options(given.profile, given.overrides, given.host, Options(firmware=given.firmware))
    return launches_of_setup(setup, named, str(given.profile), vcpus)


def _platform(given: ValuesOptions) -> Platform:
    from sevlaunch.owner.generations import GENERATIONS, generation_of, has_fmc
    from sevlaunch.owner.reference_values import Platform
    from sevlaunch.owner.report_file import read_report
    from sevlaunch.owner.report_wanted import parse_platform
    from sevlaunch.sevapi.report import PLATFORM_BITS, Report, Tcb

    if given.generation and given.generation not in GENERATIONS:
        raise UsageError(f"--generation: wanted one of {', '.join(sorted(GENERATIONS))}, found {given.generation!r}")
    generation = given.generation
    tcbs: list[Tcb] = []
    bits: dict[str, bool] = {}
    if given.report:
        report = Report.from_bytes(read_report(given.report).content)
        told = generation_of(report)
        if told and generation and told != generation:
            raise UsageError(f"{given.report} is of {told}, not of {generation}", hint="leave --generation out")
        generation = told or generation
        tcbs.append(Tcb.from_bytes(report.reported_tcb, turin=has_fmc(generation)))
        bits = {name: name in report.platform_bits for name in PLATFORM_BITS}
    try:
        tcbs += [_tcb(text, fmc=has_fmc(generation)) for text in given.tcbs]
        # What is said counts for more than what a report of one platform has.
        bits |= parse_platform(given.platform) if given.platform is not None else {}
    except ValueError as error:
        raise UsageError(str(error)) from error
    chips = tuple(launch.hexadecimal("--chip-id", one, 8, 64) for one in given.chip_ids)
    return Platform(tuple(dict.fromkeys(tcbs)), bits, generation, chips)


def _tcb(text: str, *, fmc: bool) -> Any:
    from sevlaunch.owner.report_wanted import parse_tcb
    from sevlaunch.sevapi.report import Tcb

    found = parse_tcb(text, "--tcb")
    if isinstance(found, bytes):
        return Tcb.from_bytes(found, turin=fmc)
    missing = [name for name in ("boot_loader", "tee", "snp", "microcode") if name not in found]
    if missing:
        raise ValueError(f"--tcb: {text!r} lacks {', '.join(missing)}")
    return Tcb(**found)


def _document(values: ReferenceValues, output: ValuesFormat, svn: int | None, *, expires: bool) -> Any:
    match output:
        case ValuesFormat.TRUSTEE:
            from sevlaunch.owner.trustee import stored_values

            return stored_values(values)
        case ValuesFormat.RVPS:
            from sevlaunch.owner.trustee import rvps_message

            return rvps_message(values)
        case ValuesFormat.REGO:
            from sevlaunch.owner.rego import rego_policy

            return rego_policy(values)
        case ValuesFormat.CONTRAST:
            from sevlaunch.owner.contrast import contrast_values

            return contrast_values(values)
        case ValuesFormat.CORIM:
            from sevlaunch.owner.corim import corim_document

            if svn is None:
                raise UsageError("a CoRIM endorses a launch's security version number", hint="--svn N")
            return corim_document(values, svn, expires=expires)
        case ValuesFormat.JSON:
            return values_json(values)


def values_json(values: ReferenceValues) -> dict[str, Any]:
    """The values as plain data: bytes in hexadecimal."""
    from sevlaunch.owner.report_wanted import tcb_parts

    platform = values.platform
    return {
        "launches": [
            {
                "digest": one.digest.hex(),
                "policy": one.policy,
                "vcpus": one.vcpus,
                "source": one.source,
                "host_data": one.host_data.hex() if one.host_data is not None else None,
                "id_key_digest": one.id_key_digest.hex() if one.id_key_digest is not None else None,
            }
            for one in values.launches
        ],
        "platform": {
            "generation": platform.generation or None,
            "tcbs": [tcb_parts(tcb) for tcb in platform.tcbs],
            "bits": dict(platform.bits),
            "chip_ids": [one.hex() for one in platform.chip_ids],
        },
        "expires": values.expires.isoformat(),
        "name": values.name or None,
    }


def _text(document: Any) -> str:
    import json

    return document if isinstance(document, str) else json.dumps(document, indent=2) + "\n"
