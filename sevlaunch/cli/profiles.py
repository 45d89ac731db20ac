"""Commands about profiles and the host: check, schema, init, policy, host."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from shlex import join, quote
from typing import Annotated, Any

import typer

from sevlaunch.cli.complete import catalogue_names, profile_files
from sevlaunch.cli.failures import note
from sevlaunch.cli.output import Format, FormatOption, print_document, print_json, say
from sevlaunch.cli.profile_options import SetOption
from sevlaunch.errors import ProfileError, UsageError
from sevlaunch.guest_type import GuestType


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    for command in (check, schema, init, policy, host):
        app.command(command.__name__)(command)


def check(
    profiles: Annotated[list[Path], typer.Argument(help="Profiles.", autocompletion=profile_files)],
    overrides: SetOption = [],  # noqa: B006 - typer reads the default
    untrusted: Annotated[
        bool,
        typer.Option(
            "--untrusted",
            help="List what each profile runs, reads, writes, opens, listens on and connects to outside the guest's "
            "folder.",
        ),
    ] = False,
    output: FormatOption = Format.TEXT,
) -> None:
    """Check profiles; print every mistake with its line and column. Exit 1 if there is any. Warnings are none.

    It runs nothing that a profile names, and reads only what that extends and its binary values, so that a stranger's
    profile can be looked at; render, unit, doctor --for and up run the QEMU that it names.
    """
    from sevlaunch.flows.images import unknown_images
    from sevlaunch.profile.loader import load

    results: list[dict[str, Any]] = []
    for profile in profiles:
        result: dict[str, Any] = {"profile": str(profile), "ok": True, "problems": [], "warnings": []}
        results.append(result)
        try:
            loaded = load(profile, overrides=overrides)
            if unknown := unknown_images(loaded):
                raise ProfileError(f"{profile} is refused", problems=unknown)
        except ProfileError as error:
            result |= {"ok": False, "problems": [found._asdict() for found in error.problems]}
            if output is Format.TEXT:
                say(*error.lines())
            continue
        result["warnings"] = [found._asdict() for found in loaded.warnings]
        lines: list[str] = []
        if untrusted:
            from sevlaunch.profile.reach import reach

            reached = reach(loaded)
            lines = list(map(str, reached))
            result["reach"] = [found._asdict() for found in reached]
        if output is Format.TEXT:
            for warning in loaded.warnings:
                note(f"sevlaunch: warning: {warning}")
            say(*lines, f"{profile}: ok")
    if output is Format.JSON:
        print_json(results)
    if not all(result["ok"] for result in results):
        raise typer.Exit(1)


class SchemaOf(StrEnum):
    """The files that people write."""

    PROFILE = "profile"
    REQUIREMENTS = "requirements"


def schema(
    kind: Annotated[
        SchemaOf, typer.Argument(help="A profile, or the requirements of a report (owner report --require).")
    ] = SchemaOf.PROFILE,
    output: FormatOption = Format.JSON,
) -> None:
    """Print the JSON Schema of profiles, or of requirements, for editors."""
    if kind is SchemaOf.REQUIREMENTS:
        from sevlaunch.owner.requirements import requirements_schema

        print_json(requirements_schema())
        return
    from sevlaunch.profile.schema import profile_schema

    print_json(profile_schema())


def init(
    file: Annotated[Path, typer.Argument(help="The profile to write.")],
    guest_type: Annotated[GuestType, typer.Option("--type", help="The type of guest.")] = GuestType.SEV,
    image: Annotated[
        str | None,
        typer.Option(
            "--image",
            metavar="NAME",
            help="What it boots: an image of the catalogue (sevlaunch image ls --known), or a file.",
            autocompletion=catalogue_names,
        ),
    ] = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Write a commented starting profile."""
    from sevlaunch.profile.template import starting_profile

    if image is not None:
        _check_image(image)
    try:
        with file.open("x") as stream:
            stream.write(starting_profile(guest_type, image))
    except FileExistsError as error:
        raise UsageError(f"{file} exists already", hint="name another file, or remove this one") from error
    except OSError as error:
        raise UsageError(f"can't write {file}: {error.strerror}") from error
    if output is Format.JSON:
        print_json({"profile": str(file), "type": guest_type.value})
    else:
        say(f"{file} written; start it with: sevlaunch up {quote(str(file))}")


def _check_image(image: str) -> None:
    """See that a profile may name the image without more: a URL's needs its SHA-256."""
    from sevlaunch.image.catalogue import find, read_catalogue
    from sevlaunch.image_reference import is_name, is_url

    if is_url(image):
        raise UsageError(
            f"wanted an image of the catalogue or a file, found {image!r}",
            hint="write the profile without --image, and name the URL there, with its sha256",
        )
    if is_name(image):
        find(image, read_catalogue())


def policy(
    value: Annotated[str, typer.Argument(help="A number such as 0x33, or names such as no-debug,sev.")],
    snp: Annotated[bool, typer.Option("--snp", help="A SEV-SNP policy.")] = False,
    output: FormatOption = Format.TEXT,
) -> None:
    """Show a guest policy as number and as names, with the meaning of each bit."""
    from sevlaunch.profile.policy import SEV_POLICY, SNP_POLICY, describe_policy, parse_policy, policy_warnings

    policy_format = SNP_POLICY if snp else SEV_POLICY
    try:
        number = parse_policy(value, policy_format)
    except ValueError as error:
        raise UsageError(str(error)) from error
    names = describe_policy(number, policy_format)
    warnings = policy_warnings(number, policy_format)
    if output is Format.JSON:
        print_json({"policy": number, "hex": f"{number:#x}", "names": names, "warnings": warnings})
        return
    for warning in warnings:
        note(f"sevlaunch: warning: {warning}")
    say(f"{number:#x} = {number} ({policy_format.title})")
    for name in names:
        meaning = policy_format.meanings.get(name, "minimum version of the platform's firmware")
        bit = policy_format.bits.get(name)
        say(f"  {'bit ' + str(bit.bit_length() - 1) if bit else '':<7} {name:<20} {meaning}")


def host(
    qemu: Annotated[str, typer.Option("--qemu", help="The QEMU binary to ask.")] = "auto",
    pdh: Annotated[
        Path | None,
        typer.Option(
            "--pdh",
            metavar="FILE",
            help="Instead, write the secure processor's PDH certificate to FILE (2084 bytes), and PEK, OCA and CEK to "
            "FILE.chain (6252 bytes), for `sevlaunch owner session --pdh FILE --chain FILE.chain`.",
        ),
    ] = None,
    rehearse: Annotated[
        bool,
        typer.Option(
            "--rehearse", help="With --pdh: of the emulated processor; its ASK and ARK go to FILE.ask and FILE.ark."
        ),
    ] = False,
    output: FormatOption = Format.JSON,
) -> None:
    """Print what this machine offers as JSON, for `render --host` and `doctor --host`; or write its certificates."""
    if pdh is not None:
        _write_emulated_certificates(pdh, output) if rehearse else _write_certificates(qemu, pdh, output)
        return
    if rehearse:
        raise UsageError("--rehearse goes with --pdh", hint="sevlaunch host --pdh FILE --rehearse")

    from sevlaunch.host.model import Host

    print_document(Host.probe(qemu, thorough=True).to_json() + "\n")


def _write_certificates(qemu: str, pdh: Path, output: Format) -> None:
    from sevlaunch.files import NewFile, write_new
    from sevlaunch.host.certificates import platform_certificates
    from sevlaunch.host.qemu import find_binary

    found = platform_certificates(find_binary(qemu))
    chain = Path(f"{pdh}.chain")
    write_new([NewFile(pdh, found.pdh), NewFile(chain, found.chain)])
    if output is Format.JSON:
        chip_id = found.chip_id.hex() if found.chip_id else None
        print_json({"pdh": str(pdh), "chain": str(chain), "chip_id": chip_id, "cek_address": found.cek_address})
        return
    say(f"for guest owners:  {pdh}  {chain}")
    if found.cek_address:
        say(f"the CEK as AMD signed it, for the owner's --ca:  {found.cek_address}")


def _write_emulated_certificates(pdh: Path, output: Format) -> None:
    from sevlaunch.files import NewFile, write_new
    from sevlaunch.host.folders import state_folder
    from sevlaunch.rehearsal.platform import user_platform

    platform = user_platform(state_folder())
    files = {
        "pdh": NewFile(pdh, platform.pdh_certificate.to_bytes()),
        "chain": NewFile(Path(f"{pdh}.chain"), b"".join(one.to_bytes() for one in platform.chain)),
        "ask": NewFile(Path(f"{pdh}.ask"), platform.authorities[0].to_bytes()),
        "ark": NewFile(Path(f"{pdh}.ark"), platform.authorities[1].to_bytes()),
    }
    write_new(list(files.values()))
    note("sevlaunch: REHEARSAL: these are the certificates of the emulated processor")
    names = {key: str(file.path) for key, file in files.items()}
    if output is Format.JSON:
        print_json({**names, "chip_id": platform.chip_id.hex(), "rehearsal": True})
        return
    say("for guest owners:  " + "  ".join(names.values()))
    options = ("--pdh", names["pdh"], "--chain", names["chain"], "--ca", names["ask"], "--root", names["ark"])
    say(f"sevlaunch owner session {join(options)} --policy ... --insecure")
