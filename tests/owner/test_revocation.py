"""AMD's revocation lists, and the certificates that a host gives with a report."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from sevlaunch.errors import EvidenceError, UsageError
from sevlaunch.owner.endorsement import root_fingerprint
from sevlaunch.owner.report import ReportVerdict, Trust, verify_report
from sevlaunch.owner.report_file import read_report
from sevlaunch.owner.x509_files import (
    parse_certificates,
    parse_x509,
    read_certificate_folder,
    read_certificates,
    read_revocations,
)
from sevlaunch.sevapi.certificate_table import KNOWN, make_table, parse_table
from tests.conftest import Command
from tests.owner.pki import (
    ARK_SERIAL,
    ASK_SERIAL,
    NOW,
    Processor,
    der,
    flipped,
    pem,
    processor,
    revocation_list,
    rsa_key,
)
from tests.owner.reports import failures, wanting
from tests.owner.test_report_command import WAIVED

GUIDS = {name: guid for guid, name in KNOWN.items()}


def judged(ours: Processor, *lists: x509.CertificateRevocationList, root: int = 3) -> ReportVerdict:
    """The verdict about a report, with these lists."""
    trust = Trust(at=NOW, root=root_fingerprint(ours.certificates[2:]), revocations=lists)
    return verify_report(ours.signed(), ours.certificates[:root], wanting(), trust)


def test_a_list_that_has_none_of_the_chain_holds() -> None:
    ours = processor()
    for one in (revocation_list(), revocation_list(1, 2, 3)):
        found = judged(ours, one)
        assert failures(found) == []
        assert "revocation lists" not in found.not_compared
    assert "revocation lists" in judged(ours).not_compared


@pytest.mark.parametrize(("serial", "name"), [(ASK_SERIAL, "CN=SEV-Milan"), (ARK_SERIAL, "CN=ARK-Milan")])
def test_what_the_ark_revoked_is_refused(serial: int, name: str) -> None:
    found = judged(processor(), revocation_list(7, serial))
    assert failures(found) == ["revocation"]
    assert next(check.detail for check in found.checks if check.name == "revocation") == f"{name} is revoked"
    # An older or a newer list beside it does not undo that.
    for year in (2019, 2025):
        other = revocation_list(start=datetime(year, 1, 1, tzinfo=UTC))
        assert failures(judged(processor(), other, revocation_list(serial))) == ["revocation"]


@pytest.mark.parametrize(
    "changes",
    [{"key": rsa_key("another", 4096)}, {"issuer": "ARK-Genoa"}, {"issuer": "SEV-Milan"}, {"pss": False}],
    ids=["key", "generation", "issuer", "scheme"],
)
def test_a_list_that_is_not_the_arks_covers_nothing(changes: dict[str, Any]) -> None:
    found = judged(processor(), revocation_list(**changes))
    assert failures(found) == ["revocation"]
    assert any("none of the 1 lists given" in check.detail for check in found.checks)


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (datetime(2026, 1, 2, tzinfo=UTC), datetime(2040, 1, 1, tzinfo=UTC)),
        (datetime(2020, 1, 1, tzinfo=UTC), datetime(2025, 12, 31, tzinfo=UTC)),
    ],
)
def test_a_list_has_to_be_in_force(start: datetime, end: datetime) -> None:
    assert failures(judged(processor(), revocation_list(start=start, end=end))) == ["revocation list"]


def test_without_an_ark_no_list_covers_anything() -> None:
    assert "revocation" in failures(judged(processor(), revocation_list(), root=2))


def test_an_ark_whose_key_is_of_no_known_kind_covers_nothing() -> None:
    ours = processor()
    # RFC 8017 appendix A: the object identifier of an RSA key.
    known = bytes.fromhex("2a864886f70d010101")
    content = der(ours.certificates[2])
    assert content.count(known) == 1
    (root,) = parse_certificates(content.replace(known, known[:-1] + b"\x63"))
    trust = Trust(at=NOW, root=root_fingerprint(ours.certificates[2:]), revocations=(revocation_list(),))
    found = verify_report(ours.signed(), (*ours.certificates[:2], root), wanting(), trust)
    assert failures(found) == ["ASK", "ARK", "root", "revocation"]


def test_a_list_that_was_changed_is_none_or_not_the_arks() -> None:
    content = revocation_list(7).public_bytes(Encoding.DER)
    for bit in range(0, len(content) * 8, 61):
        try:
            lists = parse_x509(flipped(content, bit)).revocations
        except ValueError:
            continue
        assert not judged(processor(), *lists).verified, bit


def test_lists_come_in_der_and_pem(tmp_path: Path) -> None:
    one = revocation_list()
    for encoding in (Encoding.DER, Encoding.PEM):
        (tmp_path / "crl").write_bytes(one.public_bytes(encoding))
        assert read_revocations(tmp_path / "crl") == (one,)
    with pytest.raises(UsageError, match="nothing else"):
        read_certificates(tmp_path / "crl", "root")
    (tmp_path / "crl").write_bytes(pem(*processor().certificates))
    with pytest.raises(UsageError, match="no revocation list"):
        read_revocations(tmp_path / "crl")
    (tmp_path / "crl").write_bytes(b"nothing")
    with pytest.raises(UsageError, match="crl: "):
        read_revocations(tmp_path / "crl")


def table(ours: Processor, **more: bytes) -> bytes:
    """What a host gives with a report."""
    vcek, ask, ark = ours.certificates
    contents = {"VCEK": der(vcek), "ASK": der(ask), "ARK": pem(ark), **more}
    return make_table({GUIDS[name]: content for name, content in contents.items()})


def test_the_hosts_table_of_certificates_is_read(tmp_path: Path) -> None:
    ours = processor()
    listed = revocation_list()
    content = table(ours, CRL=listed.public_bytes(Encoding.DER))
    # AMD 56421: the bytes of a GUID are in the order of its text.
    assert content.startswith(bytes.fromhex("63da758de6644564adc5f4b93be8accd"))
    # Linux gives whole pages.
    for behind in (b"", bytes(4096)):
        (tmp_path / "auxblob").write_bytes(content + behind)
        for place in (tmp_path, tmp_path / "auxblob"):
            found = read_certificate_folder(place)
            assert (found.certificates, found.revocations, found.skipped) == (ours.certificates, (listed,), ())
    (tmp_path / "auxblob").write_bytes(table(ours, VLEK=b"no certificate"))
    assert read_certificate_folder(tmp_path).skipped == ("VLEK: no X.509 certificate in DER or PEM",)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "no end"),
        (bytes(23), "no end"),
        (GUIDS["ARK"].bytes + bytes(8) + bytes(24), "has 0 bytes"),
        (GUIDS["ARK"].bytes + b"\x30\0\0\0" + b"\1\0\0\0" + bytes(24), "has 1 bytes at 0x30"),
        (GUIDS["ARK"].bytes + b"\xff" * 8 + bytes(24), "has 4294967295 bytes"),
        (2 * (GUIDS["ARK"].bytes + bytes(4) + b"\1\0\0\0") + bytes(24), "twice"),
        (bytes(16) + b"\1" + bytes(7), "not zero"),
        (b"".join(UUID(int=number + 1).bytes + bytes(4) + b"\1\0\0\0" for number in range(100)), "no end"),
    ],
)
def test_a_table_that_is_damaged_is_none(content: bytes, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parse_table(content)


def test_an_extended_report_is_checked_with_the_certificates_behind_it(tmp_path: Path, sevlaunch: Command) -> None:
    ours = processor(version=3)
    report = ours.signed()
    listed = revocation_list()
    file = tmp_path / "report"
    file.write_bytes(report + table(ours, CRL=listed.public_bytes(Encoding.DER)))
    found = read_report(file)
    assert (found.content, found.certificates, found.revocations) == (report, ours.certificates, (listed,))
    (tmp_path / "root").write_bytes(pem(ours.certificates[2]))
    (tmp_path / "crl").write_bytes(revocation_list(ASK_SERIAL).public_bytes(Encoding.DER))
    words: list[str | Path] = ["owner", "report", file, "--root", tmp_path / "root", "--at", "2026-01-01", *WAIVED]
    text = sevlaunch(*words).stdout
    assert "not compared, as not asked for: measurement, policy, report data, host data, minimum TCB\n" in text
    assert "  guest SVN        0\n" in text
    assert "is revoked" in sevlaunch(*words, "--crl", tmp_path / "crl", check=1).stdout
    file.write_bytes(report + bytes(100))
    with pytest.raises(EvidenceError, match="1284"):
        read_report(file)
    file.write_bytes(report + table(ours)[:200])
    with pytest.raises(EvidenceError, match="bytes at"):
        read_report(file)


def test_a_report_in_azures_envelope_is_found(tmp_path: Path) -> None:
    report = processor().signed()
    (tmp_path / "hcl").write_bytes(b"HCLA".ljust(32, b"\1") + report + b"{}")
    assert read_report(tmp_path / "hcl").content == report
    (tmp_path / "hcl").write_bytes(b"HCLA".ljust(32, b"\1") + report[:-1])
    with pytest.raises(EvidenceError):
        read_report(tmp_path / "hcl")
