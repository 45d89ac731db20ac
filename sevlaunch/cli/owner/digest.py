"""`sevlaunch owner digest`."""

from __future__ import annotations

import base64
import time
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from sevlaunch.cli.output import print_json, progress, say
from sevlaunch.cli.owner import options as launch
from sevlaunch.cli.profile_options import SetOption
from sevlaunch.errors import UsageError

if TYPE_CHECKING:
    from sevlaunch.owner.search import Findings
    from sevlaunch.owner.setup import Setup
    from sevlaunch.profile.model import Profile


class DigestFormat(StrEnum):
    """How digests are printed; hex: nothing but them, one in each line."""

    TEXT = "text"
    JSON = "json"
    HEX = "hex"


FormatOption = Annotated[
    DigestFormat, typer.Option("--format", help="How to print it; hex: the digest alone, for scripts.")
]


def register(owner: typer.Typer) -> None:
    """Add the command to ``owner``."""
    owner.command("digest")(digest)


def digest(
    profile: launch.ProfileOption = None,
    overrides: SetOption = [],  # noqa: B006 - typer reads the default
    host: launch.HostOption = None,
    guest_type: launch.TypeOption = None,
    firmware: launch.FirmwareOption = None,
    firmware_hash: launch.FirmwareHashOption = None,
    kernel: launch.KernelOption = None,
    kernel_hash: launch.KernelHashOption = None,
    initrd: launch.InitrdOption = None,
    initrd_hash: launch.InitrdHashOption = None,
    cmdline: launch.CmdlineOption = None,
    cmdline_file: launch.CmdlineFileOption = None,
    cmdline_hash: launch.CmdlineHashOption = None,
    vcpus: launch.VcpusOption = None,
    cpu: launch.CpuOption = None,
    cpu_signature: launch.CpuSignatureOption = None,
    vmsa: launch.VmsaOption = None,
    guest_features: launch.FeaturesOption = None,
    vmm: launch.VmmOption = launch.VmmName.QEMU,
    policy: launch.PolicyOption = None,
    firmware_only: Annotated[
        bool,
        typer.Option("--firmware-only", help="The digest of the firmware alone, as --firmware-hash takes it."),
    ] = False,
    dump_vmsa: Annotated[
        Path | None,
        typer.Option("--dump-vmsa", metavar="FOLDER", help="Write the VMSA page of each vCPU there: vmsa0.bin, ..."),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="HEX|FILE",
            help="A digest, ID block, report or lock that should have the same: if it has another one, why. Exit 1.",
        ),
    ] = None,
    tries: launch.TryOption = [],  # noqa: B006 - typer reads the default
    output: FormatOption = DigestFormat.TEXT,
) -> None:
    """Print the launch digest that a profile, or these options, must give."""
    options = launch.read_options(
        guest_type=guest_type,
        firmware=firmware,
        firmware_hash=firmware_hash,
        kernel=kernel,
        kernel_hash=kernel_hash,
        initrd=initrd,
        initrd_hash=initrd_hash,
        cmdline=cmdline,
        cmdline_file=cmdline_file,
        cmdline_hash=cmdline_hash,
        vcpus=vcpus,
        cpu=cpu,
        cpu_signature=cpu_signature,
        vmsa=vmsa,
        guest_features=guest_features,
        vmm=vmm,
        policy=policy,
    )
    setup, named = launch.resolve_options(profile, overrides, host, options)
    if firmware_only:
        if against is not None or dump_vmsa is not None:
            raise UsageError("--firmware-only prints one digest", hint="leave --against and --dump-vmsa out")
        _show_firmware(setup, output)
        return
    if dump_vmsa is not None:
        _dump(setup, dump_vmsa)
    compared = _compare(setup, named, against, tries) if against is not None else None
    _show(setup, named, output, compared)
    if compared and not compared.same:
        raise typer.Exit(1)


def _show_firmware(setup: Setup, output: DigestFormat) -> None:
    from sevlaunch.guest_type import GuestType

    firmware = setup.launch.firmware
    snp = setup.launch.guest_type is GuestType.SEV_SNP
    found = (firmware.after_snp_pages if snp else firmware.sha256).hex()
    if output is DigestFormat.JSON:
        print_json({"type": setup.launch.guest_type, "firmware_hash": found})
    else:
        say(found if output is DigestFormat.HEX else f"firmware hash  {found}")


def _dump(setup: Setup, folder: Path) -> None:
    from sevlaunch.files import NewFile, write_new
    from sevlaunch.owner.digest import launch_vmsas

    if len(setup.generations) > 1:
        raise UsageError("the pages are those of one generation, and here two are possible", hint="say which: --vmsa")
    pages = launch_vmsas(setup.launch)
    if not pages:
        raise UsageError(f"a {setup.launch.guest_type} launch has no VMSA pages", hint="leave --dump-vmsa out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"can't make the folder {folder}: {error.strerror}", hint="name another one") from error
    write_new([NewFile(folder / f"vmsa{number}.bin", page) for number, page in enumerate(pages)])


class _Compared(NamedTuple):
    """Whether the digest is the other one, too, and else what would have to be otherwise."""

    same: bool
    findings: Findings | None = None


def _compare(setup: Setup, profile: Profile | None, against: str, tries: Sequence[Path]) -> _Compared:
    from sevlaunch.owner.against import read_digests
    from sevlaunch.owner.explain import explain_digest
    from sevlaunch.owner.others import read_others

    wanted = read_digests(against)
    if not set(wanted).isdisjoint(setup.digests().values()):
        return _Compared(same=True)
    end = time.monotonic() + launch.SEARCH_LIMIT
    with progress("looking for what differs"):
        findings = explain_digest(
            wanted[0], setup, profile=profile, others=read_others(tries), go_on=lambda: time.monotonic() < end
        )
    return _Compared(same=False, findings=findings)


def _show(setup: Setup, profile: Profile | None, output: DigestFormat, compared: _Compared | None) -> None:
    from sevlaunch.cli.owner.checks import search_json
    from sevlaunch.owner.identity import report_shows

    digests = setup.digests()
    if output is DigestFormat.HEX:
        say(*(content.hex() for content in digests.values()))
        return
    if output is DigestFormat.JSON:
        print_json(
            {
                "type": setup.launch.guest_type,
                "policy": setup.policy,
                "digests": [
                    {"vmsa": name or None, "hex": content.hex(), "base64": base64.b64encode(content).decode()}
                    for name, content in digests.items()
                ],
                "inputs": setup.inputs,
                **report_shows(profile, digests, setup.policy),
                "against": {"same": compared.same, "search": search_json(compared.findings)} if compared else None,
            }
        )
        return
    for name, content in digests.items():
        say(f"launch digest{f' (VMSA {name})' if name else ''}")
        say(f"  hex     {content.hex()}")
        say(f"  base64  {base64.b64encode(content).decode()}")
    for one in setup.inputs:
        say(f"{one.name:<15} {one.value}  [{one.source}]")
        if one.sha256:
            say(f"{'':<15} sha256 {one.sha256}")
    for name, key in report_shows(profile, digests, setup.policy).items():
        if key:
            say(f"{name.replace('_', ' '):<15} {key}")
    if compared:
        say("the digest is the same" if compared.same else f"the digest is another: {compared.findings}")
