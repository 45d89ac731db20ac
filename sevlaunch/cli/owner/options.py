"""What `owner digest` and `owner verify` have in common: how a launch is described."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sevlaunch.cli.complete import profile_files
from sevlaunch.errors import UsageError
from sevlaunch.guest_type import GuestType

if TYPE_CHECKING:
    from sevlaunch.owner.setup import Options, Setup
    from sevlaunch.profile.model import Profile

MAX_CMDLINE_BYTES = 1 << 16
MAX_VCPUS = 4096
# Seconds for the search for an explanation of a digest: with the rest of a command they make at most 10.
SEARCH_LIMIT = 8.5
_VERSION = re.compile(r"([0-9]{1,3})\.([0-9]{1,3})")
_HEXADECIMAL = re.compile(r"(?:0x)?((?:[0-9a-fA-F]{2})*)")


class TypeName(StrEnum):
    """The types of guest that are measured."""

    SEV = "sev"
    SEV_ES = "sev-es"
    SEV_SNP = "sev-snp"


class VmsaName(StrEnum):
    """The generations of VMSA pages."""

    ES_INIT = "es-init"
    INIT2 = "init2"


class VmmName(StrEnum):
    """Who runs the guest."""

    QEMU = "QEMU"
    EC2 = "ec2"
    GCE = "gce"


ProfileOption = Annotated[Path | None, typer.Argument(metavar="[PROFILE]", autocompletion=profile_files)]
HostOption = Annotated[Path | None, typer.Option("--host", help="The saved host: for firmware: auto.")]
TypeOption = Annotated[TypeName | None, typer.Option("--type", help="The type of guest.")]
FirmwareOption = Annotated[Path | None, typer.Option("--firmware", metavar="FILE", help="Firmware image (code).")]
FirmwareHashOption = Annotated[
    str | None,
    typer.Option(
        "--firmware-hash",
        "--ovmf-hash",
        metavar="HEX",
        help="SHA-256, where nothing but the firmware is measured; for SNP the 48 bytes after its own pages.",
    ),
]
KernelOption = Annotated[Path | None, typer.Option("--kernel", metavar="FILE", help="Kernel that is measured.")]
KernelHashOption = Annotated[str | None, typer.Option("--kernel-hash", metavar="HEX", help="Its SHA-256.")]
InitrdOption = Annotated[Path | None, typer.Option("--initrd", metavar="FILE")]
InitrdHashOption = Annotated[str | None, typer.Option("--initrd-hash", metavar="HEX")]
CmdlineOption = Annotated[str | None, typer.Option("--cmdline", help="Kernel command line.")]
CmdlineFileOption = Annotated[
    Path | None, typer.Option("--cmdline-file", metavar="FILE", help="A file with it; one final newline is left out.")
]
CmdlineHashOption = Annotated[
    str | None, typer.Option("--cmdline-hash", metavar="HEX", help="SHA-256 of it with its final NUL.")
]
VcpusOption = Annotated[int | None, typer.Option("--vcpus", min=1, max=MAX_VCPUS)]
CpuOption = Annotated[str | None, typer.Option("--cpu", metavar="MODEL", help="QEMU CPU model such as EPYC-Milan.")]
CpuSignatureOption = Annotated[
    str | None, typer.Option("--cpu-signature", metavar="HEX", help="CPUID leaf 1, EAX, as the guest sees it.")
]
VmsaOption = Annotated[
    VmsaName | None,
    typer.Option(
        "--vmsa",
        help="Registers at the start, of KVM_SEV_ES_INIT or KVM_SEV_INIT2; for SNP, of kernels before or since 6.10.",
    ),
]
FeaturesOption = Annotated[
    str | None, typer.Option("--guest-features", metavar="HEX", help="SEV_FEATURES of the VMSA; for SNP 0x1.")
]
VmmOption = Annotated[VmmName, typer.Option("--vmm-type", help="SNP: who runs the guest.")]
TryOption = Annotated[
    list[Path],
    typer.Option(
        "--try",
        metavar="FILE",
        help="When it differs: a firmware, kernel, initrd or lock file that the launch may have had instead.",
    ),
]
PolicyOption = Annotated[str | None, typer.Option("--policy", help="The guest's policy, as number or names.")]


def read_options(
    *,
    guest_type: TypeName | None,
    firmware: Path | None,
    firmware_hash: str | None,
    kernel: Path | None,
    kernel_hash: str | None,
    initrd: Path | None,
    initrd_hash: str | None,
    cmdline: str | None,
    cmdline_file: Path | None,
    cmdline_hash: str | None,
    vcpus: int | None,
    cpu: str | None,
    cpu_signature: str | None,
    vmsa: VmsaName | None,
    guest_features: str | None,
    vmm: VmmName,
    policy: str | None,
) -> Options:
    """The options as the library takes them.

    :raise UsageError: when one is no hexadecimal number, or two contradict each other.
    """
    from sevlaunch.owner.setup import Options

    known_firmware = optional_hexadecimal("--firmware-hash", firmware_hash, 32, 48)
    _at_most_one({"--kernel": kernel, "--kernel-hash": kernel_hash})
    _at_most_one({"--initrd": initrd, "--initrd-hash": initrd_hash})
    _at_most_one({"--cmdline": cmdline, "--cmdline-file": cmdline_file, "--cmdline-hash": cmdline_hash})
    _at_most_one({"--cpu": cpu, "--cpu-signature": cpu_signature})
    # The digest of an SNP image's pages stands beside the image, whose metadata is still needed.
    if known_firmware is None or len(known_firmware) == 32:
        _at_most_one({"--firmware": firmware, "--firmware-hash": firmware_hash})
    return Options(
        guest_type=GuestType(guest_type.value) if guest_type else None,
        firmware=firmware,
        firmware_hash=known_firmware,
        kernel=kernel,
        kernel_hash=optional_hexadecimal("--kernel-hash", kernel_hash, 32),
        initrd=initrd,
        initrd_hash=optional_hexadecimal("--initrd-hash", initrd_hash, 32),
        cmdline=_cmdline(cmdline, cmdline_file),
        cmdline_hash=optional_hexadecimal("--cmdline-hash", cmdline_hash, 32),
        vcpus=vcpus,
        cpu=cpu,
        cpu_signature=number("--cpu-signature", cpu_signature, 32),
        init2=None if vmsa is None else vmsa is VmsaName.INIT2,
        guest_features=number("--guest-features", guest_features, 64),
        vmm=vmm.value,
        policy=policy,
    )


def resolve_options(
    profile: Path | None, overrides: list[str], host: Path | None, options: Options
) -> tuple[Setup, Profile | None]:
    """The setup that the options amount to, and the profile where there is one."""
    from sevlaunch.owner.setup import resolve_setup

    if profile is None:
        if overrides or host:
            raise UsageError("--set and --host need a profile", hint="name one")
        return resolve_setup(None, options), None
    from sevlaunch.host.model import Host
    from sevlaunch.plan.resolve import resolve
    from sevlaunch.profile.loader import load

    if options.guest_type:
        overrides = [*overrides, f"security.type={options.guest_type}"]
    loaded = load(profile, overrides=overrides)
    saved = Host.load(host) if host else None
    plan = resolve(loaded, saved) if saved else None
    return resolve_setup(loaded, options, plan=plan, host=saved), loaded.profile


def hexadecimal(name: str, text: str, *sizes: int) -> bytes:
    """The bytes that ``text`` stands for.

    :param sizes: how many there may be.
    :raise UsageError: when it stands for others, or for none.
    """
    match = _HEXADECIMAL.fullmatch(text.strip())
    content = bytes.fromhex(match[1]) if match else b""
    if len(content) not in sizes:
        wanted = " or ".join(f"{size} bytes as {2 * size}" for size in sizes)
        raise UsageError(f"{name}: wanted {wanted} hexadecimal digits, found {text!r}")
    return content


def optional_hexadecimal(name: str, text: str | None, *sizes: int) -> bytes | None:
    """As :func:`hexadecimal`, for an option that need not be given."""
    return None if text is None else hexadecimal(name, text, *sizes)


def _at_most_one(options: dict[str, object]) -> None:
    given = [name for name, value in options.items() if value is not None]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} say the same twice", hint="give one of them")


def version(name: str, text: str) -> tuple[int, int]:
    """The version in text such as ``1.40``, major and minor.

    :raise UsageError: when it is none.
    """
    found = _VERSION.fullmatch(text)
    if not found:
        raise UsageError(f"{name}: wanted a version such as 1.40, found {text!r}")
    return int(found[1]), int(found[2])


def number(name: str, text: str | None, bits: int) -> int | None:
    """The hexadecimal number of up to ``bits`` bits that ``text`` is, with or without 0x.

    :raise UsageError: when it is none.
    """
    if text is None:
        return None
    try:
        value = int(text, 16)
    except ValueError:
        value = -1
    if not 0 <= value < 1 << bits:
        raise UsageError(f"{name}: wanted a hexadecimal number of {bits} bits, found {text!r}")
    return value


def _cmdline(text: str | None, file: Path | None) -> bytes | None:
    from sevlaunch.files import read_bounded

    content = None if text is None else text.encode(errors="surrogateescape")
    if file is not None:
        content = read_bounded(file, "command line", MAX_CMDLINE_BYTES).removesuffix(b"\n")
    if content is not None and b"\0" in content:
        raise UsageError("the command line has a NUL in it", hint="the final one is added by itself")
    return content
