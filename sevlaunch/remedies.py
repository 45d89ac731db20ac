"""How to get what is missing, and since when there is what an older version lacks: one place for all who say so."""

from __future__ import annotations

import shlex

INSTALL_QEMU = (
    "install it (Debian, Ubuntu: apt install qemu-system-x86; Fedora: dnf install qemu-system-x86-core; openSUSE: "
    "zypper install qemu-x86)"
)
INSTALL_QEMU_IMG = (
    "Debian, Ubuntu: apt install qemu-utils; Fedora: dnf install qemu-img; openSUSE: zypper install qemu-img"
)
INSTALL_VERITYSETUP = (
    "Debian, Ubuntu: apt install cryptsetup-bin; Fedora: dnf install veritysetup; openSUSE: zypper install cryptsetup"
)
# For an image that is never written, and is to stand for itself.
FLATTEN = "make one that stands alone: qemu-img convert -O qcow2 {} IMAGE.qcow2"
INSTALL_OVMF = (
    "install OVMF (Debian, Ubuntu: ovmf; Fedora, RHEL: edk2-ovmf; openSUSE, SLES: qemu-ovmf-x86_64), or name it in "
    "firmware"
)
SEV_OVMF = (
    "use an OVMF that is built for it: OVMF.amdsev.fd (Debian 14, Ubuntu 26.04: package ovmf-amdsev; Fedora, RHEL: "
    "edk2-ovmf), ovmf-x86_64-sev.bin (openSUSE, SLES: qemu-ovmf-x86_64)"
)
NEWER_QEMU = "install a newer QEMU, or set qemu.binary"

# The kernel's module behind a device file.
MODULES = {
    "/dev/kvm": "modprobe kvm_amd, or kvm_intel; turn on virtualisation (SVM, VT-x) in the BIOS",
    "/dev/sev": "load the ccp module; turn on the PSP and SEV in the BIOS",
    "/dev/net/tun": "modprobe tun; networks of type user and passt do without",
    "/dev/vhost-net": "modprobe vhost_net, or leave vhost out",
    "/dev/vhost-vsock": "modprobe vhost_vsock, or leave vsock out",
}

# What QEMU brought when: objects and their properties, by git log of target/i386/sev.c.
QEMU_SINCE = {
    "sev-guest": (2, 12),
    "kernel-hashes": (6, 2),
    "legacy-vm-type": (9, 1),
    "sev-snp-guest": (9, 1),
    "reset of SEV-ES and SNP guests": (11, 0),
}
# From here on QEMU warns of the older spelling: memory-encryption is silent in 10.0.2 and warns in 11.1.3.
QEMU_DEPRECATES = {"memory-encryption": (10, 1)}
# What Linux brought when: parameters of the module kvm_amd, and what KVM takes as an SNP policy (commits 9f4701e05fae
# and 24be2b7956a5; 7a61d61396b9, and 275d6d1189e6 for the bits that need nothing of KVM).
LINUX_SINCE = {
    "sev": (4, 16),
    "sev_es": (5, 11),
    "sev_snp": (6, 11),
    "KVM_SEV_INIT2": (6, 10),
    "policies without smt, and with single-socket": (6, 17),
    "KVM_X86_SNP_POLICY_BITS": (6, 19),
}


def fetching(image: str, sha256: str | None) -> str:
    """How to get an image that a profile names by its URL, or by a name of the catalogue."""
    words = ("sevlaunch", "image", "fetch", image, *(("--sha256", sha256) if sha256 else ()))
    return f"fetch it: {shlex.join(words)}"


def qemu_since(name: str) -> str:
    """The QEMU that brought ``name``, one of :data:`QEMU_SINCE`."""
    return _text(QEMU_SINCE[name])


def linux_since(name: str) -> str:
    """The Linux that brought one of :data:`LINUX_SINCE`."""
    return _text(LINUX_SINCE[name])


def _text(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
