"""Which package of a distribution has what a guest needs: only packages that this release really has are named."""

from __future__ import annotations

from sevlaunch.guest_type import GuestType
from sevlaunch.host.facts import Distribution
from sevlaunch.remedies import INSTALL_OVMF

# Where the packages of a family are told apart by release. Debian 14 and Ubuntu 26.04 split OVMF into packages by what
# it is for; Debian's ovmf has had an image with SNP metadata since 2022.11, that of Debian 12.
_DEBIAN_WITH_AMDSEV = (14,)
_DEBIAN_WITH_SNP = (12,)
_UBUNTU_WITH_AMDSEV = (26, 4)


def install_firmware(distribution: Distribution, guest_type: GuestType, *, kernel_hashes: bool = False) -> str:
    """How to get firmware for a type of guest here.

    :param kernel_hashes: it needs a table of hashes.
    """
    special = kernel_hashes or guest_type is GuestType.SEV_SNP
    match _family(distribution):
        case "debian" if special and _since(distribution, _DEBIAN_WITH_AMDSEV):
            return "install it: apt install ovmf-amdsev"
        case "debian" if kernel_hashes or (special and not _since(distribution, _DEBIAN_WITH_SNP)):
            return _from_elsewhere(distribution, "ovmf-amdsev of Debian 14 or sid")
        case "ubuntu" if special and _since(distribution, _UBUNTU_WITH_AMDSEV):
            return "install it: apt install ovmf-amdsev"
        case "ubuntu" if special:
            return _from_elsewhere(distribution, "ovmf-amdsev of Ubuntu 26.04")
        case "debian" | "ubuntu":
            return "install it: apt install ovmf"
        case "fedora":
            return "install it: dnf install edk2-ovmf" + (", for its OVMF.amdsev.fd" if special else "")
        case "suse":
            return "install it: zypper install qemu-ovmf-x86_64" + (", for its ovmf-x86_64-sev.bin" if special else "")
    return INSTALL_OVMF


def _from_elsewhere(distribution: Distribution, package: str) -> str:
    return (
        f"{distribution.name or distribution.id} has no package with it: take {package}, which needs no other one, "
        "unpack it (dpkg -x), and name its OVMF.amdsev.fd in firmware.image"
    )


def _since(distribution: Distribution, release: tuple[int, ...]) -> bool:
    """Whether it is that release or a newer one; one without a version is the newest."""
    return not distribution.release or distribution.release >= release


def _family(distribution: Distribution) -> str:
    known = {"debian": "debian", "ubuntu": "ubuntu", "fedora": "fedora", "rhel": "fedora", "suse": "suse"}
    names = (distribution.id, distribution.id.partition("-")[0].replace("opensuse", "suse"), *distribution.like)
    if distribution.id in ("sles", "sled"):
        return "suse"
    return next((known[name] for name in names if name in known), "")
