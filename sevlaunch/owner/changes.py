"""What goes wrong in practice: the changes that the search for an explanation tries."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from sevlaunch.guest_type import EPYC_MODELS, GuestType
from sevlaunch.owner.change import Change, Known, LaunchChange, Said
from sevlaunch.owner.cpu import describe_signature, likely_signatures, signature_of
from sevlaunch.owner.digest import Launch
from sevlaunch.owner.firmware import Firmware
from sevlaunch.owner.setup import VMSA_NAMES, Setup
from sevlaunch.owner.snp_changes import COMMON_FEATURES, SNP_FEATURES, snp_changes
from sevlaunch.sevapi.kernel_hashes import NO_INITRD, cmdline_hash

MAX_VCPUS = 512

# SEV_FEATURES of the VMSA, AMD 24593 table B-4: SNPActive (bit 0), DebugSwap (bit 5).
_GUEST_FEATURES = (0x0, 0x1, 0x20, 0x21)
# What the firmware adds to a command line for the kernel, edk2's OvmfPkg/Library/QemuKernelLoaderFsDxe: not measured.
_INITRD = re.compile(rb" ?\binitrd=\S*")
# Size of the variable store before the code: edk2's OvmfPkg/Include/Fdf/OvmfPkgDefines.fdf.inc, builds of 4 and 2 MiB.
_VARS_BYTES = (0x84000, 0x20000)


def launch_changes(setup: Setup, generations: Sequence[bool], known: Known) -> Iterator[LaunchChange]:
    """The changes of a launch; those of the kernel's presence come before those of its command line.

    :param generations: the generations of VMSA pages that were expected, as ``init2``.
    """
    said = Said(setup)
    launch = setup.launch
    if launch.guest_type.encrypts_registers:
        yield from _vcpus(said, launch)
        if launch.guest_type.has_vmsa_generations:
            for init2 in sorted(set(VMSA_NAMES) - set(generations)):
                expected = VMSA_NAMES[not init2]
                yield said.change("the VMSA generation", VMSA_NAMES[init2], expected, "vmsa", {"init2": init2})
        yield from _signatures(said, launch)
        yield from _features(said, launch)
    if launch.guest_type is GuestType.SEV_SNP:
        yield from snp_changes(said, launch)
    else:
        yield from _types(said, launch)
    yield from _kernels(said, launch, known)
    yield from _cmdlines(said, setup, known)
    yield from _firmwares(said, launch, known)


def _vcpus(said: Said, launch: Launch) -> Iterator[LaunchChange]:
    for vcpus in range(1, MAX_VCPUS + 1):
        if vcpus != launch.vcpus:
            yield said.change("vcpus", str(vcpus), str(launch.vcpus), "vcpus", {"vcpus": vcpus})


def _signatures(said: Said, launch: Launch) -> Iterator[LaunchChange]:
    for value in likely_signatures():
        if value != launch.cpu_signature:
            yield said.change(
                "the CPU signature",
                describe_signature(value),
                describe_signature(launch.cpu_signature),
                "cpu signature",
                {"cpu_signature": value},
            )


def _features(said: Said, launch: Launch) -> Iterator[LaunchChange]:
    snp = launch.guest_type is GuestType.SEV_SNP
    for value in SNP_FEATURES if snp else _GUEST_FEATURES:
        if value != launch.guest_features:
            found = said.change(
                "guest features",
                f"{value:#x}",
                f"{launch.guest_features:#x}",
                "guest features",
                {"guest_features": value},
            )
            yield replace(found, alone=snp and value not in COMMON_FEATURES)


def _types(said: Said, launch: Launch) -> Iterator[LaunchChange]:
    if launch.guest_type is GuestType.SEV_ES:
        yield said.change("the type", "sev", "sev-es", "type", {"guest_type": GuestType.SEV})
        return
    fields = {"guest_type": GuestType.SEV_ES, "cpu_signature": signature_of(EPYC_MODELS[0])}
    for init2, name in VMSA_NAMES.items():
        yield said.change("the type", f"sev-es (VMSA {name})", "sev", "type", {**fields, "init2": init2})


def _kernels(said: Said, launch: Launch, known: Known) -> Iterator[LaunchChange]:
    if launch.kernel is not None:
        yield said.change("kernel hashes", "off", "on", "kernel", {"kernel": None})
        if launch.kernel.initrd != NO_INITRD:
            without = replace(launch.kernel, initrd=NO_INITRD)
            yield said.change("the initrd", "left out", "there is one", "initrd", {"kernel": without})
        for subject, field, hashes in (
            ("the kernel", "kernel", known.others.kernels),
            ("the initrd", "initrd", known.others.initrds),
        ):
            for name, content in hashes.items():
                change = Change(subject, name, said.value(field) or "none", said.source(field))
                yield said.kernel(change, **{field: content})
    elif known.kernel is not None:
        yield said.change("kernel hashes", "on", "off", "kernel", {"kernel": known.kernel})


def _cmdlines(said: Said, setup: Setup, known: Known) -> Iterator[LaunchChange]:
    text = known.cmdline if setup.cmdline is None else setup.cmdline
    if text is None or (setup.launch.kernel is not None and setup.cmdline is None):
        return
    for variant, hashed in {**_spellings(text), **known.others.cmdlines}.items():
        change = Change("the command line", variant, _shown(text), said.source("cmdline"))
        yield said.kernel(change, cmdline=hashed)


def _spellings(text: bytes) -> dict[str, bytes]:
    """The hash of each other spelling of a command line, by the spelling."""
    variants = (
        text + b"\n",
        text.rstrip(b"\n"),
        text + b"\r\n",
        text + b" ",
        text.rstrip(b" "),
        b" " + text,
        text.lstrip(b" "),
        b" " + text + b" ",
        text.strip(),
        text.strip() + b"\n",
        b" ".join(text.split()),
        text + b" \n",
        text + b"\0",
        b'"' + text + b'"',
        text.strip(b"\"'"),
        text + b" initrd=initrd",
        _INITRD.sub(b"", text),
        b"",
    )
    found = {_shown(variant): cmdline_hash(variant) for variant in variants if variant != text}
    return {**found, "hashed without its final NUL": hashlib.sha256(text).digest()}


def _shown(text: bytes) -> str:
    return repr(text.decode(errors="backslashreplace"))


def _firmwares(said: Said, launch: Launch, known: Known) -> Iterator[LaunchChange]:
    image = launch.firmware.image
    others: list[tuple[str, bytes]] = []
    for size in _VARS_BYTES:
        if len(image) > size:
            others.append((f"its code alone, without the first {size:#x} bytes", image[size:]))
    for name, content in known.variables:
        others.append((f"{name} and then the code, as one image", content + image))
        others.append((f"the code and then {name}, as one image", image + content))
        if image.startswith(content) and len(image) > len(content):
            others.append((f"its code alone, without {name}", image[len(content) :]))
    for value, content in others if image else ():
        # Not of_image(): what results need not have a table.
        other = Firmware(hashlib.sha256(content).digest(), content)
        yield said.change("the firmware", value, "the whole file", "firmware", {"firmware": other})
    for name, other in known.others.firmwares.items():
        if other.sha256 != launch.firmware.sha256:
            yield said.change("the firmware", name, said.value("firmware"), "firmware", {"firmware": other})
