"""The certificates of an SNP report: generations, chains, and what is no VCEK."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding
from msgspec.structs import replace

from sevlaunch.owner.endorsement import root_fingerprint
from sevlaunch.owner.report import Trust, verify_report
from sevlaunch.owner.roots import AMD_ROOTS
from sevlaunch.owner.x509_files import parse_certificates
from tests.owner.pki import NOW, SHA384, pem, processor, rsa_key
from tests.owner.reports import AMD_ONLY, failures, trusted, verdict, wanting


def test_generations_have_to_agree() -> None:
    ours = processor("Milan", version=3)
    assert failures(verdict(ours, cpuid_model=0x11)) == ["processor generation"]
    assert failures(verdict(ours, cpuid_family=0x17)) == ["processor generation"]


@pytest.mark.parametrize(
    ("family", "model", "generation"),
    [
        *((0x19, model, "Milan") for model in (0, 0xF)),
        *((0x19, model, "Genoa") for model in (0x10, 0x1F, 0xA0, 0xAF)),
        *((0x1A, model, "Turin") for model in (0, 0x11)),
        *((0x1A, model, "Venice") for model in (0x50, 0x57, 0x90, 0xAF, 0xC0, 0xC7)),
        *((0x1A, model, "") for model in (0x12, 0x4F, 0x58, 0x8F, 0xB0, 0xBF, 0xC8)),
        *((family, model, "") for family, model in ((0x18, 0), (0x19, 0x20), (0x19, 0x9F), (0x19, 0xB0))),
    ],
)
def test_generations_are_told_by_family_and_model(family: int, model: int, generation: str) -> None:
    """AMD 57230 section 1.4; for each processor the certificate of each generation."""
    for product in ("Milan", "Genoa", "Turin", "Venice"):
        found = verdict(processor(product, version=3), cpuid_family=family, cpuid_model=model)
        assert failures(found) == ([] if product == generation else ["processor generation"])


@pytest.mark.parametrize("product", [b"Naples", b"Milan2", b"-B0"])
def test_a_product_whose_reports_are_not_known_is_refused(product: bytes) -> None:
    found = verdict(processor(said={"2": bytes([0x16, len(product)]) + product}))
    assert failures(found) == ["processor generation"]
    assert verdict(processor(said={"2": b"\x16\x08Milan-B0"})).verified


def test_of_two_certificates_of_one_key_the_one_that_ends_later_counts() -> None:
    old = processor(end=datetime(2025, 1, 1, tzinfo=UTC))
    new = processor(key=old.key)
    for certificates in (
        (*old.certificates, new.certificates[0]),
        (new.certificates[0], *old.certificates),
    ):
        assert failures(verify_report(old.signed(), certificates, wanting(), trusted(old))) == []


def test_certificates_have_to_be_in_force() -> None:
    ours = processor(end=datetime(2025, 1, 1, tzinfo=UTC))
    assert failures(verdict(ours)) == ["in force"]
    early = replace(trusted(ours), at=datetime(2024, 1, 1, tzinfo=UTC))
    assert verify_report(ours.signed(), ours.certificates, wanting(), early).verified
    assert failures(verdict(processor(start=datetime(2026, 2, 1, tzinfo=UTC)))) == ["in force"]
    # To the second: from the first of them to the last.
    for at, ok in ((NOW, True), (NOW - timedelta(seconds=1), False), (NOW + timedelta(seconds=1), False)):
        short = processor(start=NOW, end=NOW)
        found = verify_report(short.signed(), short.certificates, wanting(), replace(trusted(short), at=at))
        assert failures(found) == ([] if ok else ["in force"])


def test_amds_root_is_of_the_processors_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = processor("Genoa")
    mark = root_fingerprint(ours.certificates)
    for generation, failed in (("Genoa", []), ("Milan", ["processor generation"])):
        monkeypatch.setitem(AMD_ROOTS, mark, generation)
        assert failures(verify_report(ours.signed(), ours.certificates, wanting(), AMD_ONLY)) == failed


def test_without_a_root_the_chain_ends_nowhere() -> None:
    ours = processor()
    found = verify_report(ours.signed(), ours.certificates[:2], wanting(), Trust(at=NOW, rehearsal=True))
    assert failures(found) == ["ASK", "ARK", "root"]


def test_the_provider_of_a_vlek_is_named() -> None:
    details = {check.name: check.detail for check in verdict(processor(vlek=True)).checks}
    assert details["cloud provider"] == "the key is for 'csp'"


def test_an_issuer_that_may_not_sign_is_refused() -> None:
    assert failures(verdict(processor(authority=False))) == ["VCEK"]


@pytest.mark.parametrize(
    ("bits", "refused"), [((2048, 4096), ["VCEK"]), ((3072, 4096), ["VCEK"]), ((4096, 2048), ["ASK", "ARK"])]
)
def test_an_issuer_whose_key_is_shorter_than_amds_is_refused(bits: tuple[int, int], refused: list[str]) -> None:
    ours = processor(bits=bits)
    found = verify_report(ours.signed(), ours.certificates, wanting(), Trust(at=NOW, rehearsal=True))
    assert failures(found) == refused
    details = [check.detail for check in found.checks if check.name in refused]
    assert all(detail.endswith("the issuer's key is not RSA with 4096 bits") for detail in details)


@pytest.mark.parametrize(
    "scheme",
    [{"pss": False}, {"digest": hashes.SHA256()}, {"digest": hashes.SHA512()}],
    ids=["PKCS #1", "SHA-256", "SHA-512"],
)
def test_a_certificate_that_is_signed_another_way_than_amds_is_refused(scheme: dict[str, Any]) -> None:
    found = verdict(processor(**scheme))
    assert failures(found) == ["VCEK"]
    assert any(check.detail.endswith("not with RSA-PSS and SHA-384") for check in found.checks)


@pytest.mark.parametrize("size", [8, 64])
def test_a_hardware_id_may_stand_in_an_octet_string(size: int) -> None:
    hardware_id = bytes(range(1, size + 1))
    ours = processor(said={"4": bytes([4, size]) + hardware_id})
    assert verdict(ours, chip_id=hardware_id.ljust(64, b"\0")).verified
    assert failures(verdict(ours, chip_id=hardware_id[:-1].ljust(64, b"\0"))) == ["chip id"]


@pytest.mark.parametrize(
    ("oid", "value"),
    [
        # The hardware id: of another length, as another type, with a wrong length, or none beside no CSP id.
        *(
            ("4", value)
            for value in (b"1234567", b"\4\7" + b"1234567", b"\5\x08" + b"12345678", b"\4\x09" + b"12345678", b"")
        ),
        # As if it were a VCEK and a VLEK.
        ("5", b"\x16\3csp"),
        # The product: none, as another type, or no ASCII.
        *(("2", value) for value in (b"", b"\x0c\5Milan", b"\x16\5Mil\xc3\xa4")),
        # A length in BER's long form.
        ("2", b"\x16\x80" + b"M" * 128),
        # Security version numbers: none, too large, negative, of two numbers, of another type, or empty.
        *(("3.1", value) for value in (b"", b"\2\2\1\0", b"\2\1\x80", b"\2\1\3\3", b"\4\1\3", b"\2")),
        *((oid, b"") for oid in ("3.2", "3.3", "3.8")),
    ],
)
def test_a_certificate_that_says_something_else_than_amds_is_no_vcek(oid: str, value: bytes) -> None:
    found = verdict(processor(said={oid: value}))
    assert failures(found) == ["signature"]
    assert any("no VCEK or VLEK given" in check.detail for check in found.checks)


def test_a_certificate_of_a_key_on_another_curve_is_no_vcek() -> None:
    # With it, a signature verifies all the same.
    assert failures(verdict(processor(curve=ec.SECP256R1()))) == ["signature"]
    assert failures(verdict(processor(curve=ec.SECP521R1()))) == ["signature"]


def test_the_root_to_trust_is_one() -> None:
    ours, other = processor(), processor(bits=(4096, 2048))
    for certificates, count in ((ours.certificates[:2], 0), (other.certificates, 0), (ours.certificates, 1)):
        if count:
            root_fingerprint(certificates)
            continue
        with pytest.raises(ValueError, match=f"wanted one self-signed ARK, found {count}"):
            root_fingerprint(certificates)


@pytest.mark.parametrize(("place", "refused"), [(1, ["VCEK", "ASK"]), (2, ["ASK", "ARK", "root"])])
def test_an_issuer_whose_key_is_no_rsa_key_is_refused(place: int, refused: list[str]) -> None:
    ours = processor()
    certificates = list(ours.certificates)
    certificates[place] = reissued(certificates[place], ed25519.Ed25519PrivateKey.generate().public_key())
    found = verify_report(ours.signed(), certificates, wanting(), Trust(at=NOW, rehearsal=True))
    assert failures(found) == refused
    root = next(check.detail for check in found.checks if check.name == "root")
    assert root.startswith("there is no ARK with an RSA key" if place == 2 else "REHEARSAL or unknown root")


def reissued(certificate: x509.Certificate, key: ed25519.Ed25519PublicKey) -> x509.Certificate:
    """The same certificate for another key, with a signature of its own kind but not of its issuer."""
    builder = x509.CertificateBuilder(
        issuer_name=certificate.issuer,
        subject_name=certificate.subject,
        public_key=key,
        serial_number=1,
        not_valid_before=certificate.not_valid_before_utc,
        not_valid_after=certificate.not_valid_after_utc,
    ).add_extension(x509.BasicConstraints(True, None), critical=True)
    pss = padding.PSS(padding.MGF1(SHA384), 48)
    return builder.sign(rsa_key("stranger", 4096), SHA384, rsa_padding=pss)


def test_a_chain_in_one_pem_is_the_same_as_single_files() -> None:
    ours = processor()
    certificates = parse_certificates(pem(*reversed(ours.certificates)))
    assert verify_report(ours.signed(), certificates, wanting(), trusted(ours)).verified
