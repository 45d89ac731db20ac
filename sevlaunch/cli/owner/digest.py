"""`sevlaunch owner digest`."""

from __future__ import annotations

import base64
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from sevlaunch.cli.output import print_json, say
from sevlaunch.cli.owner import options as launch
from sevlaunch.cli.profiles import SetOption

if TYPE_CHECKING:
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
    _show(setup, named, output)


def _show(setup: Setup, profile: Profile | None, output: DigestFormat) -> None:
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
