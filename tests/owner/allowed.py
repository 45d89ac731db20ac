"""A launch that verifiers are told of: its profile and its digests."""

from __future__ import annotations

from pathlib import Path

from sevlaunch.guest_type import GuestType
from sevlaunch.owner.digest import Launch, launch_digest
from sevlaunch.owner.firmware import Firmware
from tests.owner.images import ovmf

IMAGE = ovmf()
EPYC_MILAN = 0xA00F11


def snp_profile(folder: Path) -> Path:
    """An SNP profile with two vCPUs, and its firmware beside it."""
    (folder / "ovmf.fd").write_bytes(IMAGE)
    file = folder / "guest.yaml"
    file.write_text(
        "cpu: {model: EPYC-Milan-v2, count: 2}\n"
        "firmware: {image: ovmf.fd}\n"
        f"security: {{type: sev-snp, policy: [smt, abi-1.51], host_data: '{'ab' * 32}'}}\n"
    )
    return file


def digest(vcpus: int) -> bytes:
    """The digest of that profile's launch with other vCPUs."""
    return launch_digest(Launch(GuestType.SEV_SNP, Firmware.of_image(IMAGE), None, vcpus, EPYC_MILAN, guest_features=1))
