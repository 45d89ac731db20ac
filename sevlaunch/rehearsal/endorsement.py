"""The emulated platform's X.509 chain, ARK -> ASK -> VCEK, in the shape of AMD's own: AMD 57230, "VCEK Certificate"."""

from __future__ import annotations

from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from sevlaunch.sevapi.constants import OID_HARDWARE_ID, OID_PRODUCT_NAME, OID_STRUCT_VERSION, OIDS_TCB
from sevlaunch.sevapi.report import Tcb

_SIGNATURE = padding.PSS(padding.MGF1(hashes.SHA384()), hashes.SHA384.digest_size)
_VALID = datetime(2020, 1, 1, tzinfo=UTC), datetime(2050, 1, 1, tzinfo=UTC)
_DER_INTEGER, _DER_IA5_STRING = 0x02, 0x16

# What the emulated processor is like; what it is, the names say.
PRODUCT = "Milan-B0"
# What its firmware's parts say of themselves.
TCB = Tcb(boot_loader=4, tee=0, snp=24, microcode=219)


def chain(
    ark: rsa.RSAPrivateKey, ask: rsa.RSAPrivateKey, vcek: ec.EllipticCurvePrivateKey, tcb: Tcb, chip_id: bytes
) -> tuple[bytes, bytes, bytes]:
    """VCEK, ASK and ARK as DER; each says in its name that it is of a rehearsal."""
    ark_name, ask_name = _name("ARK-REHEARSAL"), _name("SEV-REHEARSAL")
    root = _authority(ark_name, ark_name, ark.public_key(), path_length=None).sign(
        ark, hashes.SHA384(), rsa_padding=_SIGNATURE
    )
    signing = _authority(ask_name, ark_name, ask.public_key(), path_length=0).sign(
        ark, hashes.SHA384(), rsa_padding=_SIGNATURE
    )
    leaf = _builder(_name("SEV-VCEK REHEARSAL"), ask_name).public_key(vcek.public_key())
    extensions = {OID_STRUCT_VERSION: _integer(0), OID_PRODUCT_NAME: _string(PRODUCT)}
    extensions |= {oid: _integer(getattr(tcb, part)) for part, oid in OIDS_TCB.items() if part != "fmc"}
    extensions[OID_HARDWARE_ID] = chip_id
    for oid, value in extensions.items():
        leaf = leaf.add_extension(x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value), critical=False)
    endorsement = leaf.sign(ask, hashes.SHA384(), rsa_padding=_SIGNATURE)
    vcek_der, ask_der, ark_der = (one.public_bytes(Encoding.DER) for one in (endorsement, signing, root))
    return vcek_der, ask_der, ark_der


def _authority(
    subject: x509.Name, issuer: x509.Name, key: rsa.RSAPublicKey, *, path_length: int | None
) -> x509.CertificateBuilder:
    constraints = x509.BasicConstraints(ca=True, path_length=path_length)
    return _builder(subject, issuer).public_key(key).add_extension(constraints, critical=True)


def _builder(subject: x509.Name, issuer: x509.Name) -> x509.CertificateBuilder:
    start, end = _VALID
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer)
    return builder.not_valid_before(start).not_valid_after(end).serial_number(x509.random_serial_number())


def _name(common_name: str) -> x509.Name:
    organisation = "REHEARSAL: emulated by sevlaunch, protects nothing"
    return x509.Name(
        [
            x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, organisation),
            x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name),
        ]
    )


def _integer(value: int) -> bytes:
    content = value.to_bytes(value.bit_length() // 8 + 1)
    return bytes([_DER_INTEGER, len(content)]) + content


def _string(text: str) -> bytes:
    return bytes([_DER_IA5_STRING, len(text)]) + text.encode()
