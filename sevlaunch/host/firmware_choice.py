"""Which firmware fits a guest, in which order, and why the others are passed over.

A descriptor only describes: where the image was looked into, that decides what it has.
"""

from __future__ import annotations

import fnmatch
from typing import Literal

from msgspec import Struct

from sevlaunch.guest_type import GuestType
from sevlaunch.host.firmware import UNDESCRIBED
from sevlaunch.host.firmware_facts import IGVM, FirmwareDescriptor, FirmwareImage
from sevlaunch.host.model import Host

# The feature that a descriptor must have, by guest type; QEMU's docs/interop/firmware.json, FirmwareFeature.
FEATURES = {
    GuestType.SEV: ("amd-sev",),
    GuestType.SEV_ES: ("amd-sev", "amd-sev-es"),
    GuestType.SEV_SNP: ("amd-sev-snp",),
}

# What the firmware starts: a kernel that it was handed, such a kernel whose hash is measured, the guest's disks, or
# none of these.
Boots = Literal["kernel", "hashes", "disk", "nothing"]


class Wanted(Struct, frozen=True):
    """What a firmware is for.

    ``machine`` is the full name of the machine type. ``pflash``: whether the guest can have it. ``stateless``: whether
    an image without variables is preferred.
    """

    guest_type: GuestType
    machine: str
    pflash: bool
    boots: Boots = "nothing"
    stateless: bool = False
    secure_boot: bool = False


class FirmwareChoice(Struct, frozen=True):
    """``fitting`` in order of preference; ``passed_over``: a descriptor's file, or an image -> why it does not fit."""

    fitting: tuple[FirmwareDescriptor, ...]
    passed_over: dict[str, str]


def choose(host: Host, wanted: Wanted) -> FirmwareChoice:
    """The firmware that fits, in order of preference.

    First what is sure to boot what the guest boots; then, where attestation counts, a stateless image, elsewhere one
    that keeps its boot entries; then what a descriptor names, in the descriptors' order; then images that none names.
    """
    candidates = [*host.firmware, *_undescribed(host)]
    reasons = {source_of(one): _unfit(one, host.firmware_image(one.executable), wanted) for one in candidates}
    fitting = [one for one in candidates if not reasons[source_of(one)]]

    def later(one: FirmwareDescriptor) -> tuple[bool, bool, bool]:
        image = host.firmware_image(one.executable)
        doubtful = image is not None and image.older_amdsev and wanted.boots in ("kernel", "disk")
        return doubtful, is_stateless(one) != wanted.stateless, not one.file

    fitting.sort(key=later)
    for other in fitting[1:]:
        reasons[source_of(other)] = f"fits, and comes after {source_of(fitting[0])}"
    return FirmwareChoice(tuple(fitting), {file: reason for file, reason in reasons.items() if reason})


def source_of(descriptor: FirmwareDescriptor) -> str:
    """The descriptor's file, or the image, where none describes it."""
    return descriptor.file or descriptor.executable


def is_stateless(descriptor: FirmwareDescriptor) -> bool:
    """Whether the firmware keeps no variables, and can be handed to QEMU as one image."""
    return descriptor.device == "memory" or descriptor.mode == "stateless"


def lacking_features(descriptor: FirmwareDescriptor, guest_type: GuestType) -> list[str]:
    """The features for a type of guest that the descriptor does not say its firmware has."""
    return [feature for feature in FEATURES.get(guest_type, ()) if feature not in descriptor.features]


def _undescribed(host: Host) -> list[FirmwareDescriptor]:
    """The well-known images that are there and that no descriptor names, as if one did."""
    described = {one.executable for one in host.firmware}
    there = (host.firmware_image(path) for path in UNDESCRIBED if path not in described)
    return [
        FirmwareDescriptor(
            file="",
            device="memory",
            mode="stateless",
            executable=image.path,
            interface_types=["uefi"],
            machines=["pc-q35-*"],
        )
        for image in there
        if image and not image.error
    ]


def _unfit(descriptor: FirmwareDescriptor, image: FirmwareImage | None, wanted: Wanted) -> str:
    if "uefi" not in descriptor.interface_types:
        return "no UEFI firmware"
    if descriptor.device == "igvm" or (image and image.format == "igvm"):
        return IGVM
    if not any(fnmatch.fnmatchcase(wanted.machine, pattern) for pattern in descriptor.machines):
        return f"not for {wanted.machine}"
    if "intel-tdx" in descriptor.features:
        return "is for Intel TDX"
    if "host-uefi-vars" in descriptor.features:
        return "keeps its variables with the host (uefi-vars-x64, from QEMU 10.0 on), which sevlaunch lacks yet"
    if image and image.error:
        return f"{image.path}: {image.error}"
    return _lacks(descriptor, image, wanted) or _unfit_mapping(descriptor, image, wanted)


def _lacks(descriptor: FirmwareDescriptor, image: FirmwareImage | None, wanted: Wanted) -> str:
    """What the firmware can't do that the guest needs."""
    lacking = lacking_features(descriptor, wanted.guest_type)
    if image and wanted.guest_type.encrypted:
        if lacks := image.lacks_for(wanted.guest_type, kernel_hashes=wanted.boots == "hashes"):
            return lacks
        # All OVMF that has a SEV-ES reset vector is built for SEV; without one, the descriptor is the only word.
        lacking = [] if image.es_reset_vector is not None else lacking
    if lacking:
        return f"lacks {' and '.join(lacking)}"
    if "requires-smm" in descriptor.features:
        if not wanted.guest_type.has_smm:
            return f"needs SMM, which {wanted.guest_type} can't have"
        if not wanted.secure_boot:
            return "needs SMM (secure boot), which was not asked for"
    if wanted.secure_boot and not {"secure-boot", "enrolled-keys"} <= set(descriptor.features):
        return "has no secure boot with enrolled keys, which firmware.secure_boot asks for"
    return ""


def _unfit_mapping(descriptor: FirmwareDescriptor, image: FirmwareImage | None, wanted: Wanted) -> str:
    """Why the guest can't have the firmware in the way that it comes."""
    image_format = image.format if image else descriptor.executable_format
    if image_format not in ("raw", "qcow2"):
        return f"format {image_format} is not supported"
    if is_stateless(descriptor):
        if not wanted.guest_type.encrypted:
            return "stateless: an ordinary guest keeps its boot entries"
        if wanted.pflash and descriptor.device == "flash":
            return ""
        seen = image or FirmwareImage(path=descriptor.executable, format=image_format)
        return seen.unfit_for_bios()
    if not wanted.pflash:
        why = "" if wanted.guest_type is GuestType.SEV_SNP else " of KVM_SEV_INIT2"
        return f"on pflash, which a {wanted.guest_type} guest{why} can't have"
    if descriptor.mode == "combined":
        return "" if not wanted.guest_type.encrypted else "code and variables in one, so that both would be measured"
    return "" if descriptor.nvram_template else f"flash mode {descriptor.mode} without an NVRAM template"
