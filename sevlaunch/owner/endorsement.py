"""The keys that sign SNP reports, and their X.509 chain: AMD 57230, "VCEK Certificate and KDS Interface Specification".

::

    VCEK <- ASK  <- ARK (self-signed)
    VLEK <- ASVK <- ARK

Revocation lists are not looked at: they would have to come from the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from msgspec import Struct

from sevlaunch.owner.checks import Check
from sevlaunch.owner.roots import AMD_ROOTS, check_root, fingerprint
from sevlaunch.sevapi.constants import OID_CSP_ID, OID_HARDWARE_ID, OID_PRODUCT_NAME, OIDS_TCB
from sevlaunch.sevapi.report import SigningKey, Tcb

# Since Turin, and before.
_HARDWARE_ID_BYTES = (8, 64)

_INTEGER, _OCTET_STRING, _IA5_STRING = 0x02, 0x04, 0x16
# What `cryptography` raises for certificates that are damaged, or not as AMD makes them.
_DAMAGED = (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)


class Endorsement(Struct, frozen=True):
    """What a VCEK or VLEK certificate says of its key.

    ``product`` is such as ``Milan-B0``; ``hardware_id`` has 64 bytes, 8 since Turin, and is empty for a VLEK;
    ``csp_id`` names the cloud provider of a VLEK, and is empty for a VCEK.
    """

    key: ec.EllipticCurvePublicKey
    kind: SigningKey
    product: str
    tcb: Tcb
    hardware_id: bytes
    csp_id: str

    @classmethod
    def from_certificate(cls, certificate: x509.Certificate) -> Endorsement:
        """What ``certificate`` says.

        :raise ValueError: when it is none of a VCEK or VLEK.
        """
        try:
            key = certificate.public_key()
            found = {one.oid.dotted_string: one.value for one in certificate.extensions}
        except _DAMAGED as error:
            raise ValueError(str(error)) from error
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
            raise ValueError("its key is not on P-384")
        raw = {oid: value.value for oid, value in found.items() if isinstance(value, x509.UnrecognizedExtension)}
        if (OID_HARDWARE_ID in raw) == (OID_CSP_ID in raw):
            raise ValueError("it has not one of hardware id (VCEK) and CSP id (VLEK)")
        missing = [name for name, oid in OIDS_TCB.items() if oid not in raw and name != "fmc"]
        if missing or OID_PRODUCT_NAME not in raw:
            raise ValueError(f"it lacks AMD's extensions for {', '.join(missing) or 'the product'}")
        hardware_id = _hardware_id(raw[OID_HARDWARE_ID]) if OID_HARDWARE_ID in raw else b""
        parts = {name: _small_integer(raw[oid]) for name, oid in OIDS_TCB.items() if oid in raw}
        return cls(
            key=key,
            kind=SigningKey.VCEK if OID_HARDWARE_ID in raw else SigningKey.VLEK,
            product=_text(raw[OID_PRODUCT_NAME]),
            tcb=Tcb(**parts),
            hardware_id=hardware_id,
            csp_id=_text(raw[OID_CSP_ID]) if OID_CSP_ID in raw else "",
        )

    @property
    def generation(self) -> str:
        """The product without its stepping, such as ``Milan``."""
        return self.product.partition("-")[0]


class EndorsementChain(Struct, frozen=True):
    """A VCEK or VLEK with its issuers, where they are among the certificates given."""

    subject: x509.Certificate
    authority: x509.Certificate | None
    root: x509.Certificate | None

    @classmethod
    def build(cls, subject: x509.Certificate, certificates: Sequence[x509.Certificate]) -> EndorsementChain:
        """The chain of ``subject``; of two issuers with one name, the one that signed is taken."""
        authority = _issuer(subject, certificates)
        return cls(subject, authority, _issuer(authority, certificates) if authority else None)

    @property
    def amd_generation(self) -> str | None:
        """The generation that AMD's root stands for; None for another root."""
        key = rsa_key_of(self.root) if self.root else None
        return AMD_ROOTS.get(fingerprint(key)) if key else None

    def checks(self, kind: SigningKey, *, at: datetime, trusted: str | None, rehearsal: bool) -> list[Check]:
        """Each step to the root.

        :param kind: VCEK or VLEK.
        :param at: when the certificates have to be in force.
        :param trusted: the fingerprint of the only root to trust, instead of AMD's.
        :param rehearsal: take any root.
        """
        authority_name = "ASVK" if kind is SigningKey.VLEK else "ASK"
        steps = [
            _step(kind.name, self.subject, authority_name, self.authority),
            _step(authority_name, self.authority, "ARK", self.root),
            _step("ARK", self.root, "ARK", self.root),
        ]
        key = rsa_key_of(self.root) if self.root else None
        if key:
            steps.append(check_root(fingerprint(key), trusted=trusted, rehearsal=rehearsal))
        else:
            steps.append(Check("root", False, "there is no ARK with an RSA key to look at"))
        return [*steps, self._in_force(at)]

    def _in_force(self, at: datetime) -> Check:
        given = [one for one in (self.subject, self.authority, self.root) if one]
        start = max(one.not_valid_before_utc for one in given)
        end = min(one.not_valid_after_utc for one in given)
        return Check("in force", start <= at <= end, f"{start:%Y-%m-%d} to {end:%Y-%m-%d}, looked at for {at:%Y-%m-%d}")


def endorsements(certificates: Sequence[x509.Certificate]) -> list[tuple[x509.Certificate, Endorsement]]:
    """The VCEKs and VLEKs among ``certificates``."""
    found = []
    for certificate in certificates:
        try:
            found.append((certificate, Endorsement.from_certificate(certificate)))
        except ValueError:
            # An ASK, an ARK, or something that has nothing to do with reports.
            continue
    return found


def _issuer(subject: x509.Certificate, certificates: Sequence[x509.Certificate]) -> x509.Certificate | None:
    named = [one for one in certificates if one.subject == subject.issuer]
    return next((one for one in named if not _refusal(subject, one)), named[0] if named else None)


def _step(name: str, subject: x509.Certificate | None, by: str, issuer: x509.Certificate | None) -> Check:
    by = "itself" if name == by else by
    if subject is None:
        return Check(name, False, "not among the certificates given")
    title = _common_name(subject)
    if issuer is None:
        return Check(
            name, False, f"{title}: no certificate of its issuer {subject.issuer.rfc4514_string()!r} was given"
        )
    refusal = _refusal(subject, issuer)
    if refusal:
        return Check(name, False, f"{title}: not signed by {by}: {refusal}")
    return Check(name, True, f"{title}: signed by {by}")


# A verifier sees the same few chains again and again; certificates are equal when their bytes are.
@lru_cache(maxsize=1024)
def _refusal(subject: x509.Certificate, issuer: x509.Certificate) -> str:
    """Why ``issuer`` did not sign ``subject`` as AMD's keys do (RSA-PSS with SHA-384); empty when it did."""
    try:
        scheme = subject.signature_algorithm_parameters
        key = issuer.public_key()
        if not isinstance(scheme, padding.PSS) or not isinstance(subject.signature_hash_algorithm, hashes.SHA384):
            return "not with RSA-PSS and SHA-384"
        if not isinstance(key, rsa.RSAPublicKey) or key.key_size != 4096:
            return "the issuer's key is not RSA with 4096 bits"
        if not issuer.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return "the issuer may not sign certificates"
        subject.verify_directly_issued_by(issuer)
    except InvalidSignature:
        return "the signature does not verify"
    except x509.ExtensionNotFound:
        return "the issuer may not sign certificates"
    except _DAMAGED as error:
        return str(error)
    return ""


def rsa_key_of(certificate: x509.Certificate) -> rsa.RSAPublicKey | None:
    """The certificate's key; None for one of another kind, or that is none."""
    try:
        key = certificate.public_key()
    except _DAMAGED:
        return None
    return key if isinstance(key, rsa.RSAPublicKey) else None


def root_fingerprint(certificates: Sequence[x509.Certificate]) -> str:
    """The fingerprint of the self-signed one of ``certificates``, for ``trusted``.

    :raise ValueError: when there is not exactly one.
    """
    found = {fingerprint(key) for one in certificates if not _refusal(one, one) and (key := rsa_key_of(one))}
    if len(found) != 1:
        raise ValueError(f"wanted one self-signed ARK, found {len(found)}")
    return found.pop()


def _common_name(certificate: x509.Certificate) -> str:
    names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(names[0].value) if names else "(no name)"


def _value(content: bytes, tag: int) -> bytes:
    # DER with a short length, X.690 section 8.1.
    if len(content) < 2 or content[0] != tag or content[1] != len(content) - 2 or content[1] >= 0x80:
        raise ValueError(f"an extension of AMD's has the value {content.hex()}")
    return content[2:]


def _small_integer(content: bytes) -> int:
    number = int.from_bytes(_value(content, _INTEGER), "big", signed=True)
    if not 0 <= number <= 0xFF:
        raise ValueError(f"a security version number is {number}")
    return number


def _text(content: bytes) -> str:
    return _value(content, _IA5_STRING).decode("ascii")


def _hardware_id(content: bytes) -> bytes:
    # Older certificates have the bytes themselves, newer ones an OCTET STRING: AMD 57230 table "hwID".
    found = content if len(content) in _HARDWARE_ID_BYTES else _value(content, _OCTET_STRING)
    if len(found) not in _HARDWARE_ID_BYTES:
        raise ValueError(f"a hardware id has {len(found)} bytes")
    return found
