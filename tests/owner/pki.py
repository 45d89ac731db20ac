"""Keys and certificates for tests: a SEV platform with an ASK and ARK, and an SNP processor with an X.509 chain."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from sevlaunch.sevapi.ca_certificate import ARK_USAGE, ASK_USAGE, CaCertificate
from sevlaunch.sevapi.certificate import Algorithm, Certificate, Usage
from sevlaunch.sevapi.report import Report, Tcb

START, END = datetime(2020, 1, 1, tzinfo=UTC), datetime(2040, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
SHA384, P384 = hashes.SHA384(), ec.SECP384R1()
ARK_SERIAL, ASK_SERIAL = 0x10000, 0x10001
AMD = "1.3.6.1.4.1.3704.1"
TCBS = {"boot_loader": "3.1", "tee": "3.2", "snp": "3.3", "microcode": "3.8", "fmc": "3.9"}


def flipped(content: bytes, bit: int) -> bytes:
    """The same with one bit changed."""
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@cache
def rsa_key(name: str, bits: int) -> rsa.RSAPrivateKey:
    """A key that stays the same in a run: making one takes long."""
    return rsa.generate_private_key(65537, bits)


@dataclass(frozen=True)
class SevChain:
    """A platform's certificates, signed as a real platform's are."""

    pdh: Certificate
    pek: Certificate
    oca: Certificate
    cek: Certificate
    ask: CaCertificate
    ark: CaCertificate
    pdh_key: ec.EllipticCurvePrivateKey

    @property
    def exported(self) -> bytes:
        """What `sevctl export` writes: PDH, PEK, OCA, CEK."""
        return b"".join(one.to_bytes() for one in (self.pdh, self.pek, self.oca, self.cek))

    @property
    def authorities(self) -> bytes:
        """What AMD's ask_ark files hold."""
        return self.ask.to_bytes() + self.ark.to_bytes()


@cache
def sev_chain(bits: int = 2048) -> SevChain:
    """A platform whose root is not AMD's."""
    pdh, pek, oca, cek = (ec.generate_private_key(ec.SECP384R1()) for _ in range(4))
    ask, ark = rsa_key("ask", bits), rsa_key("ark", bits)

    def made(key: ec.EllipticCurvePrivateKey, usage: Usage) -> Certificate:
        algorithm = Algorithm.ECDH_SHA256 if usage is Usage.PDH else Algorithm.ECDSA_SHA256
        return Certificate.of_key(key.public_key(), usage, algorithm)

    return SevChain(
        pdh=made(pdh, Usage.PDH).signed_by((pek, Usage.PEK)),
        pek=made(pek, Usage.PEK).signed_by((oca, Usage.OCA), (cek, Usage.CEK)),
        oca=made(oca, Usage.OCA).signed_by((oca, Usage.OCA)),
        cek=made(cek, Usage.CEK).signed_by((ask, Usage.ASK)),
        ask=CaCertificate.of_key(ask.public_key(), ASK_USAGE, b"s" * 16, b"r" * 16).signed_by(ark),
        ark=CaCertificate.of_key(ark.public_key(), ARK_USAGE, b"r" * 16, b"r" * 16).signed_by(ark),
        pdh_key=pdh,
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common)])


def _certificate(
    subject: str,
    key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey,
    issuer: str,
    signer: rsa.RSAPrivateKey,
    extensions: dict[str, bytes] | None = None,
    *,
    authority: bool = True,
    start: datetime = START,
    end: datetime = END,
    digest: hashes.SHA256 | hashes.SHA384 | hashes.SHA512 = SHA384,
    pss: bool = True,
    serial: int = 1,
) -> x509.Certificate:
    builder = x509.CertificateBuilder(
        issuer_name=_name(issuer),
        subject_name=_name(subject),
        public_key=key,
        serial_number=serial,
        not_valid_before=start,
        not_valid_after=end,
    )
    if extensions is None:
        builder = builder.add_extension(x509.BasicConstraints(authority, None), critical=True)
    for oid, value in (extensions or {}).items():
        extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(f"{AMD}.{oid}"), value)
        builder = builder.add_extension(extension, critical=False)
    scheme = padding.PSS(padding.MGF1(digest), digest.digest_size) if pss else padding.PKCS1v15()
    return builder.sign(signer, digest, rsa_padding=scheme)


@dataclass(frozen=True)
class Processor:
    """An SNP processor of our own: the key that signs its reports, and the certificates, that key's first."""

    key: ec.EllipticCurvePrivateKey
    certificates: tuple[x509.Certificate, ...]
    report: Report

    def signed(self, **changes: object) -> bytes:
        """A report with some fields changed, signed."""
        return replace(self.report, **changes).signed_by(self.key)  # type: ignore[arg-type]


def processor(
    generation: str = "Milan",
    *,
    version: int = 2,
    vlek: bool = False,
    tcb: Tcb | None = None,
    authority: bool = True,
    start: datetime = START,
    end: datetime = END,
    bits: tuple[int, int] = (4096, 4096),
    said: dict[str, bytes] | None = None,
    digest: hashes.SHA256 | hashes.SHA384 | hashes.SHA512 = SHA384,
    pss: bool = True,
    curve: ec.EllipticCurve = P384,
    key: ec.EllipticCurvePrivateKey | None = None,
    surname: str = "",
) -> Processor:
    """A processor whose root is not AMD's, with a report that goes with its certificate.

    :param bits: of ASK and ARK.
    :param said: what its certificate has in place of extensions, by the end of AMD's object identifier; empty: none.
    :param curve: of its key, unless ``key`` is that.
    :param digest: with ``pss``, the scheme of the signature under its certificate.
    :param surname: what the names of all certificates end with.
    """
    turin = generation in ("Turin", "Venice")
    tcb = tcb or Tcb(3, 0, 8, 115, fmc=1 if turin else None)
    key = key or ec.generate_private_key(curve)
    ask, ark = rsa_key("snp-ask", bits[0]), rsa_key("snp-ark", bits[1])
    extensions = {"2": b"\x16" + bytes([len(generation)]) + generation.encode()}
    for part, number in tcb._asdict().items():
        if number is not None:
            extensions[TCBS[part]] = bytes([2, 1, number]) if number < 0x80 else bytes([2, 2, 0, number])
    hardware_id = bytes(range(1, 9 if turin else 65))
    extensions |= {"5": b"\x16\x03csp"} if vlek else {"4": hardware_id}
    extensions = {oid: value for oid, value in {**extensions, **(said or {})}.items() if value}
    issuer = (f"SEV-VLEK-{generation}" if vlek else f"SEV-{generation}") + surname
    root = f"ARK-{generation}{surname}"
    name = ("SEV-VLEK" if vlek else "SEV-VCEK") + surname
    certificates = (
        _certificate(name, key.public_key(), issuer, ask, extensions, start=start, end=end, digest=digest, pss=pss),
        _certificate(issuer, ask.public_key(), root, ark, authority=authority, serial=ASK_SERIAL),
        _certificate(root, ark.public_key(), root, ark, serial=ARK_SERIAL),
    )
    family, model = {"Milan": (0x19, 1), "Genoa": (0x19, 0x11), "Turin": (0x1A, 2), "Venice": (0x1A, 0x51)}[generation]
    blank = Report.from_bytes(bytes(1184))
    report = replace(
        blank,
        version=version,
        policy=0x30000,
        signature_algo=1,
        key_info=1 << 2 if vlek else 0,
        report_data=bytes(range(64)),
        measurement=bytes(range(48)),
        host_data=bytes(range(32)),
        current_tcb=tcb.to_bytes(),
        reported_tcb=tcb.to_bytes(),
        committed_tcb=tcb.to_bytes(),
        launch_tcb=tcb.to_bytes(),
        chip_id=bytes(64) if vlek else hardware_id.ljust(64, b"\0"),
        cpuid_family=family if version >= 3 else 0,
        cpuid_model=model if version >= 3 else 0,
    )
    return Processor(key, certificates, report)


def revocation_list(
    *revoked: int,
    key: rsa.RSAPrivateKey | None = None,
    issuer: str = "ARK-Milan",
    start: datetime = START,
    end: datetime = END,
    pss: bool = True,
) -> x509.CertificateRevocationList:
    """A list as the ARK of a Milan of ours signs it, with the serial numbers that are revoked.

    :param key: that signs it, in place of the ARK's.
    """
    builder = x509.CertificateRevocationListBuilder(issuer_name=_name(issuer), last_update=start, next_update=end)
    for serial in revoked:
        entry = x509.RevokedCertificateBuilder(serial_number=serial, revocation_date=start).build()
        builder = builder.add_revoked_certificate(entry)
    scheme = padding.PSS(padding.MGF1(SHA384), SHA384.digest_size) if pss else padding.PKCS1v15()
    return builder.sign(key or rsa_key("snp-ark", 4096), SHA384, rsa_padding=scheme)


def pem(*certificates: x509.Certificate) -> bytes:
    """The certificates behind each other in PEM."""
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates)


def der(certificate: x509.Certificate) -> bytes:
    """The certificate in DER."""
    return certificate.public_bytes(serialization.Encoding.DER)
