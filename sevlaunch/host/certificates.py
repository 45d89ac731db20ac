"""The certificates of this machine's secure processor, from QEMU's ``query-sev-capabilities``."""

from __future__ import annotations

import base64
from typing import Any

from msgspec import Struct

from sevlaunch.errors import HostError
from sevlaunch.host.qemu_answers import converse
from sevlaunch.sevapi.constants import CEK_ADDRESS, CERTIFICATE_BYTES

# PDH_CERT_EXPORT (AMD 55766) gives three with the PDH: PEK, OCA, CEK.
_CHAIN_BYTES = 3 * CERTIFICATE_BYTES


class PlatformCertificates(Struct, frozen=True):
    """``pdh`` (2084 bytes), ``chain`` (6252 bytes: PEK, OCA, CEK), and the processor's id, None before QEMU 7.1."""

    pdh: bytes
    chain: bytes
    chip_id: bytes | None

    @property
    def cek_address(self) -> str | None:
        """Where AMD gives the signed CEK of this processor."""
        return CEK_ADDRESS.format(id=self.chip_id.hex()) if self.chip_id else None


def platform_certificates(binary: str) -> PlatformCertificates:
    """What the secure processor exports.

    :param binary: the QEMU to ask.
    :raise HostError: when QEMU gives no certificates, as on a machine without SEV.
    """
    # With TCG to fall back on, QEMU itself says what is wrong with KVM.
    reply = converse(binary, "none,accel=kvm:tcg", [("query-sev-capabilities", {})])[0]
    if "error" in reply:
        reason = reply["error"].get("desc") if isinstance(reply["error"], dict) else reply["error"]
        raise HostError(
            f"wanted the secure processor's certificates, QEMU says: {reason}",
            hint="they come from a host with SEV, as a user who may open /dev/kvm and /dev/sev: see `sevlaunch host`",
        )
    try:
        found: dict[str, Any] = reply["return"]
        chip_id = found.get("cpu0-id")
        certificates = PlatformCertificates(
            pdh=base64.b64decode(found["pdh"], validate=True),
            chain=base64.b64decode(found["cert-chain"], validate=True),
            chip_id=base64.b64decode(chip_id, validate=True) if chip_id else None,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise HostError(
            f"{binary} does not answer query-sev-capabilities as QEMU does: {type(error).__name__}: {error}",
            hint="try another qemu.binary",
        ) from error
    for name, content, wanted in (
        ("PDH", certificates.pdh, CERTIFICATE_BYTES),
        ("chain", certificates.chain, _CHAIN_BYTES),
    ):
        if len(content) != wanted:
            raise HostError(
                f"wanted a {name} of {wanted} bytes from {binary}, found {len(content)}", hint="update the SEV firmware"
            )
    return certificates
