"""launchSecurity: SEV, SEV-ES and SEV-SNP."""

from __future__ import annotations

import base64

from sevlaunch.libvirt.conversion import Conversion, number
from sevlaunch.libvirt.document import Element
from sevlaunch.profile.fields import BLOB_BYTES, decode_base64
from sevlaunch.profile.policy import SEV_ES

# Element -> key of the profile; libvirt's docs/formatdomain.rst, "Launch Security".
_NUMBERS = {"cbitpos": "cbitpos", "reducedPhysBits": "reduced_phys_bits"}
_SEV_BLOBS = {"dhCert": "dh_cert", "session": "session"}
_SNP_BLOBS = {
    "guestVisibleWorkarounds": "guest_visible_workarounds",
    "idBlock": "id_block",
    "idAuth": "id_auth",
    "hostData": "host_data",
}
_YES_NO = {"yes": True, "no": False}


def import_security(conversion: Conversion) -> None:
    """launchSecurity with all that is in it."""
    if not conversion.encrypted:
        return
    security, outcomes = conversion.security, conversion.outcomes
    # libvirt reads a policy as hexadecimal with or without 0x.
    policy = number(security.child("policy").text, 16)
    guest_type = "sev-snp" if conversion.snp else "sev-es" if (policy or 0) & SEV_ES else "sev"
    outcomes.carry(("security", "type"), guest_type, security.part("type"))
    if policy is not None:
        outcomes.carry(("security", "policy"), f"{policy:#x}", security.child("policy"))
    for name, key in _NUMBERS.items():
        value = number(security.child(name).text, 0)
        if value is not None:
            outcomes.carry(("security", key), value, security.child(name))
    for name, key in (_SNP_BLOBS if conversion.snp else _SEV_BLOBS).items():
        blob = security.child(name)
        _blob(conversion, blob, key)
    _switch(conversion, security, "kernelHashes", "kernel_hashes")
    if conversion.snp:
        _switch(conversion, security, "authorKey", "author_key_enabled")
        _switch(conversion, security, "vcek", "vcek_disabled", inverted=True)


def _blob(conversion: Conversion, blob: Element, key: str) -> None:
    """Carry a binary value that stands in the XML; never the path of a file, which a stranger could have chosen."""
    if not blob:
        return
    content = decode_base64(blob.text.encode())
    if content is not None and len(content) == BLOB_BYTES[key]:
        conversion.outcomes.carry(("security", key), base64.b64encode(content).decode(), blob)
    else:
        found = "none" if content is None else f"{len(content)} bytes"
        reason = f"wanted base64 of {BLOB_BYTES[key]} bytes, found {found}: name the right file in security.{key}"
        conversion.outcomes.refuse(blob, reason)


def _switch(conversion: Conversion, security: Element, attribute: str, key: str, *, inverted: bool = False) -> None:
    value = _YES_NO.get(security.get(attribute) or "")
    if value is not None:
        conversion.outcomes.carry(("security", key), value != inverted, security.part(attribute))
