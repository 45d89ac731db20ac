"""What a machine type's name says of it, before a QEMU was asked which types it has."""

from __future__ import annotations

import re

_XEN = "it is a guest of Xen, and sevlaunch starts guests of KVM and TCG"
# Machine types that can't run what sevlaunch makes, and why.
UNUSABLE = {
    "isapc": "it has no PCI bus, which virtio devices need",
    "microvm": "it has no PCI bus, which virtio devices need, and boots no UEFI firmware from pflash",
    "nitro-enclave": "it boots an enclave's image, and has no firmware",
    "none": "it has no CPU and no memory",
    "x-remote": "it runs devices for another QEMU, and no guest",
    "xenfv": _XEN,
    "xenpv": _XEN,
    "xenpvh": _XEN,
}


def why_unusable(machine: str) -> str:
    """Why no guest can have this machine type, or nothing."""
    return UNUSABLE.get(machine, _XEN if machine.startswith(("xenfv-", "xenpv-", "xenpvh-")) else "")


def is_q35(machine: str) -> bool:
    """Whether it is a q35.

    Distributions have types of their own, such as pc-q35-rhel9.4.0 and pc-q35-jammy-maxcpus, and aliases such as
    ubuntu-q35.
    """
    return re.fullmatch("q35|pc-q35-.+|.+-q35", machine) is not None


def is_i440fx(machine: str) -> bool:
    """Whether it has the first chipset that QEMU emulated; before QEMU 1.3 its versions had names without it."""
    return re.fullmatch("pc|pc-i440fx-.+|pc-[0-9].*", machine) is not None
