"""Which described firmware fits a type of guest, in which order, and why the others are passed over."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

from msgspec import Struct

from sevlaunch.guest_type import GuestType
from sevlaunch.host.facts import FirmwareDescriptor

# The feature that a descriptor must have, by guest type; QEMU's docs/interop/firmware.json, FirmwareFeature.
FEATURES = {
    GuestType.SEV: ("amd-sev",),
    GuestType.SEV_ES: ("amd-sev", "amd-sev-es"),
    GuestType.SEV_SNP: ("amd-sev-snp",),
}


class Wanted(Struct, frozen=True):
    """What a firmware is for.

    ``machine`` is the full name of the machine type. ``pflash``: whether the guest can have it.
    """

    guest_type: GuestType
    machine: str
    pflash: bool
    stateless: bool
    secure_boot: bool = False


class FirmwareChoice(Struct, frozen=True):
    """``fitting`` in order of preference; ``passed_over``: a descriptor's file -> why it does not fit."""

    fitting: tuple[FirmwareDescriptor, ...]
    passed_over: dict[str, str]


def choose(descriptors: Sequence[FirmwareDescriptor], wanted: Wanted) -> FirmwareChoice:
    """The descriptors that fit.

    Where attestation counts, a stateless image goes first. Elsewhere it goes last: the images made for attestation
    (OVMF.amdsev.fd) boot nothing from an ordinary disk.
    """
    reasons = {descriptor.file: _unfit(descriptor, wanted) for descriptor in descriptors}
    fitting = [descriptor for descriptor in descriptors if not reasons[descriptor.file]]
    fitting.sort(key=lambda descriptor: is_stateless(descriptor) != wanted.stateless)
    for later in fitting[1:]:
        reasons[later.file] = f"fits, and comes after {fitting[0].file}"
    return FirmwareChoice(tuple(fitting), {file: reason for file, reason in reasons.items() if reason})


def is_stateless(descriptor: FirmwareDescriptor) -> bool:
    """Whether the firmware keeps no variables, and can be handed to QEMU as one image."""
    return descriptor.device == "memory" or descriptor.mode == "stateless"


def _unfit(descriptor: FirmwareDescriptor, wanted: Wanted) -> str:
    stateless = is_stateless(descriptor)
    if "uefi" not in descriptor.interface_types:
        return "no UEFI firmware"
    if not any(fnmatch.fnmatchcase(wanted.machine, pattern) for pattern in descriptor.machines):
        return f"not for {wanted.machine}"
    lacking = [feature for feature in FEATURES.get(wanted.guest_type, ()) if feature not in descriptor.features]
    if lacking:
        return f"lacks {' and '.join(lacking)}"
    if "requires-smm" in descriptor.features:
        if not wanted.guest_type.has_smm:
            return f"needs SMM, which {wanted.guest_type} can't have"
        if not wanted.secure_boot:
            return "needs SMM (secure boot), which was not asked for"
    if wanted.secure_boot and not {"secure-boot", "enrolled-keys"} <= set(descriptor.features):
        return "has no secure boot with enrolled keys, which firmware.secure_boot asks for"
    if "intel-tdx" in descriptor.features:
        return "is for Intel TDX"
    if descriptor.executable_format != "raw":
        return f"format {descriptor.executable_format} is not supported"
    if not stateless and (descriptor.mode != "split" or descriptor.nvram_template is None):
        return f"flash mode {descriptor.mode} without an NVRAM template"
    if stateless and not wanted.guest_type.encrypted:
        return "stateless: an ordinary guest keeps its boot entries"
    if not stateless and not wanted.pflash:
        why = "" if wanted.guest_type is GuestType.SEV_SNP else " of KVM_SEV_INIT2"
        return f"on pflash, which a {wanted.guest_type} guest{why} can't have"
    return ""
