"""What is written is read back the same, and what is read is written back the same: no byte is lost."""

from __future__ import annotations

import dataclasses
import struct
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from sevlaunch.sevapi.ca_certificate import ARK_USAGE, ASK_USAGE, CaCertificate
from sevlaunch.sevapi.id_block import AUTHENTICATION_BYTES, BLOCK_BYTES, IdAuthentication, IdBlock
from sevlaunch.sevapi.report import REPORT_BYTES, Report, Tcb
from tests.owner.pki import processor, rsa_key

U8, U32, U64 = (st.integers(0, (1 << bits) - 1) for bits in (8, 32, 64))


def octets(size: int) -> st.SearchStrategy[bytes]:
    """Exactly ``size`` bytes."""
    return st.binary(min_size=size, max_size=size)


@given(st.builds(IdBlock, octets(48), U64, octets(16), octets(16), U32, U32))
def test_id_blocks_round_trip(block: IdBlock) -> None:
    content = block.to_bytes()
    assert len(content) == BLOCK_BYTES == 96
    assert IdBlock.from_bytes(content) == block
    # AMD 56860 table "ID_BLOCK": the policy ends it.
    assert content[:48] == block.digest
    assert struct.unpack_from("<Q", content, 0x58) == (block.policy,)


@settings(max_examples=30)
@given(st.builds(IdAuthentication, octets(512), octets(1028), octets(512), octets(1028), U32, U32))
def test_id_authentication_round_trips(authentication: IdAuthentication) -> None:
    content = authentication.to_bytes()
    assert len(content) == AUTHENTICATION_BYTES == 4096
    assert IdAuthentication.from_bytes(content) == authentication
    # AMD 56860 table "ID_AUTH_INFO".
    assert content[0x40:0x240] == authentication.block_signature
    assert content[0x680:0x880] == authentication.id_key_signature


def test_id_blocks_have_one_size() -> None:
    for size in (BLOCK_BYTES - 1, BLOCK_BYTES + 1):
        with pytest.raises(ValueError, match=f"an ID block has 96 bytes, found {size}"):
            IdBlock.from_bytes(bytes(size))
    for size in (AUTHENTICATION_BYTES - 1, AUTHENTICATION_BYTES + 1):
        with pytest.raises(ValueError, match=f"ID authentication information has 4096 bytes, found {size}"):
            IdAuthentication.from_bytes(bytes(size))


def test_signatures_under_an_id_block_are_of_the_one_algorithm_and_of_keys_on_p384() -> None:
    block, (id_key, author) = IdBlock(bytes(48), 0x30000), (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
    made = IdAuthentication.make(block, id_key, author)
    assert made.signs(block.to_bytes())
    assert made.author_signs_id_key()
    assert not made.signs(dataclasses.replace(block, guest_svn=1).to_bytes())
    for algorithm in (0, 2):
        assert not dataclasses.replace(made, id_key_algorithm=algorithm).signs(block.to_bytes())
        assert not dataclasses.replace(made, author_key_algorithm=algorithm).author_signs_id_key()
    for key in (bytes(1028), b"\1" + made.id_key[1:]):
        assert not dataclasses.replace(made, id_key=key).signs(block.to_bytes())
        assert not dataclasses.replace(made, author_key=key).author_signs_id_key()
    assert not dataclasses.replace(made, author_key=made.id_key).author_signs_id_key()


@given(octets(REPORT_BYTES))
def test_reports_are_read_where_amd_puts_their_fields(content: bytes) -> None:
    report = Report.from_bytes(content)
    # AMD 56860 table "ATTESTATION_REPORT".
    for name, offset in {
        "family_id": 0x10,
        "current_tcb": 0x38,
        "report_data": 0x50,
        "measurement": 0x90,
        "host_data": 0xC0,
        "id_key_digest": 0xE0,
        "author_key_digest": 0x110,
        "report_id": 0x140,
        "reported_tcb": 0x180,
        "chip_id": 0x1A0,
        "committed_tcb": 0x1E0,
        "launch_tcb": 0x1F0,
    }.items():
        value = getattr(report, name)
        assert content[offset : offset + len(value)] == value
    for name, offset, form in (
        ("version", 0, "<I"),
        ("policy", 8, "<Q"),
        ("vmpl", 0x30, "<I"),
        ("signature_algo", 0x34, "<I"),
        ("key_info", 0x48, "<I"),
        ("cpuid_family", 0x188, "<B"),
        ("cpuid_model", 0x189, "<B"),
        ("launch_mit_vector", 0x1F8, "<Q"),
        ("current_mit_vector", 0x200, "<Q"),
    ):
        assert struct.unpack_from(form, content, offset) == (getattr(report, name),)


def reports() -> st.SearchStrategy[Report]:
    """Reports with any field; reserved bytes are zero."""
    return octets(REPORT_BYTES).map(Report.from_bytes)


@settings(max_examples=30, deadline=None)
@given(reports())
def test_reports_round_trip(report: Report) -> None:
    content = report.signed_by(processor().key)
    assert len(content) == REPORT_BYTES
    assert Report.from_bytes(content) == report


def test_each_reserved_byte_is_noticed() -> None:
    blank = Report.from_bytes(bytes(REPORT_BYTES))
    body = bytearray(REPORT_BYTES)
    newest = dataclasses.replace(blank, version=5)
    body[0] = 5
    assert newest.reserved_set(bytes(body)) == []
    used = 0
    for offset in range(4, 0x2A0):
        changed = bytes(body[:offset]) + b"\xff" + bytes(body[offset + 1 :])
        report = Report.from_bytes(changed)
        used += not report.reserved_set(changed)
    # AMD 56860: 4 + 21 + 2 reserved bytes among the fields, key info with its reserved bits, 152 bytes behind them.
    assert 0x2A0 - 4 - used == 4 + 21 + 2 + 4 + 152


@pytest.mark.parametrize(("version", "fields"), [(2, 5), (3, 2), (4, 2), (5, 0)])
def test_fields_of_later_versions_are_reserved_before(version: int, fields: int) -> None:
    blank = Report.from_bytes(bytes(REPORT_BYTES))
    added = dict.fromkeys(("cpuid_family", "cpuid_model", "cpuid_stepping"), 1)
    added |= dict.fromkeys(("launch_mit_vector", "current_mit_vector"), 1)
    changes: dict[str, Any] = {"version": version, **added}
    report = dataclasses.replace(blank, **changes)
    found = report.reserved_set(report.signed_by(processor().key))
    assert len(found) == fields


@given(U8, U8, U8, U8, st.none() | U8)
def test_tcbs_round_trip(boot_loader: int, tee: int, snp: int, microcode: int, fmc: int | None) -> None:
    tcb = Tcb(boot_loader, tee, snp, microcode, fmc)
    assert Tcb.from_bytes(tcb.to_bytes(), turin=fmc is not None) == tcb


@settings(max_examples=20, deadline=None)
@given(octets(16), octets(16), st.sampled_from([ARK_USAGE, ASK_USAGE]), st.sampled_from([2048, 4096]), st.binary())
def test_ca_certificates_round_trip(key_id: bytes, issuer: bytes, usage: int, bits: int, rest: bytes) -> None:
    key: rsa.RSAPrivateKey = rsa_key("ark", bits)
    made = CaCertificate.of_key(key.public_key(), usage, key_id, issuer).signed_by(key)
    content = made.to_bytes()
    assert len(content) == 64 + 3 * bits // 8
    assert CaCertificate.take(content + rest) == (made, rest)
    assert made.is_signed_by(made) == (key_id == issuer)


def test_a_signature_of_a_key_of_another_size_is_none() -> None:
    made = CaCertificate.of_key(rsa_key("ark", 2048).public_key(), ARK_USAGE, bytes(16), bytes(16))
    signed = made.signed_by(rsa_key("ark", 2048))
    assert signed.is_signed_by(signed)
    for signature in (signed.signature[:-1], signed.signature + b"\0", b""):
        assert not dataclasses.replace(signed, signature=signature).is_signed_by(signed)
    other = CaCertificate.of_key(rsa_key("ark", 3072).public_key(), ARK_USAGE, bytes(16), bytes(16))
    assert not other.signed_by(rsa_key("ark", 3072)).is_signed_by(other)
    # No key at all: an even exponent.
    assert not signed.is_signed_by(dataclasses.replace(signed, exponent=2))


@given(st.binary(max_size=100))
def test_what_is_no_ca_certificate_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError):
        CaCertificate.take(content)
