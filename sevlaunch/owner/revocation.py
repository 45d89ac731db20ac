"""AMD's revocation lists of the keys that sign reports: AMD 57230 chapter 4, "Certificate Revocation List".

The ARK signs a list for each generation, ``/vcek/v1/GENERATION/crl`` and ``/vlek/v1/GENERATION/crl`` of AMD's key
distribution service, with the ASKs and ASVKs that are not to be trusted any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from sevlaunch.owner.checks import Check
from sevlaunch.owner.endorsement import EndorsementChain, rsa_key_of

_NAME = "revocation"


def revocation_checks(
    chain: EndorsementChain, lists: Sequence[x509.CertificateRevocationList], *, at: datetime
) -> list[Check]:
    """Whether the lists cover the chain, and have none of its certificates.

    :param at: when a list has to be in force.
    """
    certificates = [one for one in (chain.subject, chain.authority, chain.root) if one]
    if chain.root is None:
        return [Check(_NAME, False, "there is no ARK that could have signed a list")]
    ours = [one for one in lists if _is_signed_by(one, chain.root)]
    if not ours:
        return [Check(_NAME, False, f"none of the {len(lists)} lists given is signed by the chain's ARK")]
    newest = max(ours, key=lambda one: one.last_update_utc)
    start, end = newest.last_update_utc, newest.next_update_utc
    current = start <= at and (end is None or at <= end)
    until = f"{end:%Y-%m-%d}" if end else "no end"
    checks = [
        Check("revocation list", current, f"{start:%Y-%m-%d} to {until}, looked at for {at:%Y-%m-%d}"),
    ]
    # What one list of the ARK's has revoked stays so: a host that gives an older one beside it gains nothing.
    revoked = {entry.serial_number for one in ours for entry in one}
    gone = [one for one in certificates if one.issuer == chain.root.subject and one.serial_number in revoked]
    shown = ", ".join(f"{one.subject.rfc4514_string()} is revoked" for one in gone)
    return [*checks, Check(_NAME, not gone, shown or f"none of the {len(revoked)} that are revoked")]


def _is_signed_by(one: x509.CertificateRevocationList, root: x509.Certificate) -> bool:
    """Whether the ARK signed the list as it signs certificates: RSA-PSS with SHA-384."""
    key = rsa_key_of(root)
    if key is None or not isinstance(one.signature_hash_algorithm, hashes.SHA384):
        return False
    scheme = one.signature_algorithm_parameters
    return one.issuer == root.subject and isinstance(scheme, padding.PSS) and one.is_signature_valid(key)
