"""SNP reports: a real one and ones of our own, with what can be wrong about them."""

from __future__ import annotations

import random
from typing import Any

import pytest

from sevlaunch.owner.report import Trust, report_fields, verify_report
from sevlaunch.owner.x509_files import parse_certificates
from sevlaunch.sevapi.report import Tcb
from tests.guest.support import tries
from tests.owner.pki import NOW, der, flipped, processor
from tests.owner.reports import AMD_ONLY, failures, real, real_report, trusted, verdict, wanting
from tests.published import vector


def test_the_real_milan_report_verifies_up_to_amds_root() -> None:
    report = real_report()
    wanted = wanting(
        digest=report[0x90:0xC0],
        policy=0x30000,
        host_data=bytes(32),
        report_data=report[0x50:0x90],
        id_key_digest=bytes(48),
        author_key_digest=bytes(48),
        min_tcb={"boot_loader": 3, "snp": 8, "microcode": 115},
        vmpl=0,
    )
    found = real(report, vector("milan-vcek.der"), vector("milan-chain.pem"), wanted=wanted)
    assert failures(found) == []
    assert found.verified
    assert found.not_compared == ("revocation lists",)
    assert next(check.detail for check in found.checks if check.name == "root") == "AMD's root key for Milan"
    fields = report_fields(found)
    assert fields["reported_tcb"] == {"boot_loader": 3, "tee": 0, "snp": 8, "microcode": 115}
    assert fields["measurement"] == report[0x90:0xC0].hex()


def test_a_real_milan_report_of_a_guest_that_may_be_debugged_lacks_only_that() -> None:
    report, vcek, chain = (vector(f"go-sev-guest/{name}") for name in ("report.bin", "vcek.der", "chain.pem"))
    assert failures(real(report, vcek, chain)) == ["debug"]
    assert real(report, vcek, chain, wanted=wanting(allow_debug=True)).verified
    # It is signed by its own processor's key and by no other's.
    found = real(report, vector("milan-vcek.der"), chain, wanted=wanting(allow_debug=True))
    assert failures(found) == ["signature"]


@tries(2100, 1_000_000)
def test_no_bit_of_report_vcek_or_chain_can_change(count: int) -> None:
    parts = [real_report(), vector("milan-vcek.der"), vector("milan-chain.pem")]
    positions = [(index, bit) for index, part in enumerate(parts) for bit in range(len(part) * 8)]
    chosen = random.Random(4).sample(positions, min(count, len(positions)))
    # Bit 10739 of the chain makes a serial number negative that stands in an extension.
    for index, bit in [*chosen, (2, 10739)]:
        altered = [*parts[:index], flipped(parts[index], bit), *parts[index + 1 :]]
        assert not real(*altered).verified, f"bit {bit} of {('report', 'VCEK', 'chain')[index]}"


@tries(200, 1_000_000)
def test_no_bit_of_the_chain_in_der_can_change(count: int) -> None:
    report, vcek = real_report(), vector("milan-vcek.der")
    chain = [der(one) for one in parse_certificates(vector("milan-chain.pem"))]
    assert real(report, vcek, *chain).verified
    for index, name in enumerate(("ASK", "ARK")):
        bits = len(chain[index]) * 8
        for bit in random.Random(name).sample(range(bits), min(count // 2, bits)):
            altered = [*chain[:index], flipped(chain[index], bit), *chain[index + 1 :]]
            assert not real(report, vcek, *altered).verified, f"bit {bit} of {name}"


@tries(150, 100_000)
def test_no_bit_of_a_report_and_chain_of_ours_can_change(count: int) -> None:
    ours = processor(version=3)
    parts = [ours.signed(), *map(der, ours.certificates)]
    trust = trusted(ours)
    positions = [(index, bit) for index, part in enumerate(parts) for bit in range(len(part) * 8)]
    for index, bit in random.Random(5).sample(positions, min(count, len(positions))):
        altered = [*parts[:index], flipped(parts[index], bit), *parts[index + 1 :]]
        assert not real(*altered, trust=trust).verified, f"bit {bit} of {('report', 'VCEK', 'ASK', 'ARK')[index]}"
    assert real(*parts, trust=trust).verified


def test_each_certificate_is_needed_and_none_may_be_another() -> None:
    report, vcek = real_report(), vector("milan-vcek.der")
    ask, ark = (der(one) for one in parse_certificates(vector("milan-chain.pem")))
    ours = processor()
    others = [der(one) for one in ours.certificates]
    assert failures(real(report, vcek, ask))[0] == "ASK"
    assert failures(real(report, vcek, ark))[0] == "VCEK"
    assert failures(real(report, ask, ark)) == ["signature"]
    assert failures(real(report, *others)) == ["signature"]
    # Certificates of the same names by someone else do not help.
    assert "VCEK" in failures(real(report, vcek, *others[1:]))
    # Nor do they harm.
    assert real(report, *others, vcek, ask, ark).verified


@pytest.mark.parametrize(
    ("generation", "version", "vlek"),
    [
        ("Milan", 2, False),
        ("Milan", 3, True),
        ("Genoa", 3, False),
        ("Turin", 3, False),
        ("Turin", 5, True),
        ("Venice", 5, False),
    ],
)
def test_reports_of_every_generation_verify(generation: str, version: int, vlek: bool) -> None:
    ours = processor(generation, version=version, vlek=vlek)
    found = verdict(ours)
    assert failures(found) == []
    assert found.generation == generation
    details = {check.name: check.detail for check in found.checks}
    assert details["VLEK" if vlek else "VCEK"].startswith(f"SEV-{'VLEK' if vlek else 'VCEK'}: signed by AS")
    assert details["ASVK" if vlek else "ASK"].endswith(": signed by ARK")
    assert details["ARK"] == f"ARK-{generation}: signed by itself"
    assert report_fields(found)["reported_tcb"].get("fmc") == (1 if generation in ("Turin", "Venice") else None)


def test_a_newer_version_verifies_by_what_is_known_of_it() -> None:
    ours = processor(version=6)
    assert verdict(ours).verified
    body = bytearray(ours.signed())
    body[0x214] = 1
    assert failures(verify_report(bytes(body), ours.certificates, wanting(), trusted(ours))) == ["signature"]


def test_our_root_is_not_amds_unless_given_or_in_a_rehearsal() -> None:
    ours = processor()
    report = ours.signed()
    found = verify_report(report, ours.certificates, wanting(), AMD_ONLY)
    assert failures(found) == ["root"]
    assert any(check.detail.startswith("REHEARSAL or unknown root: ") for check in found.checks)
    rehearsed = verify_report(report, ours.certificates, wanting(), Trust(at=NOW, rehearsal=True))
    assert rehearsed.verified
    assert any("REHEARSAL" in check.detail for check in rehearsed.checks)
    other = Trust(at=NOW, root="0" * 64, rehearsal=True)
    assert failures(verify_report(report, ours.certificates, wanting(), other)) == ["root"]


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"policy": 0xB0000}, "debug"),
        ({"version": 1}, "version"),
        ({"cpuid_family": 0x19}, "reserved bytes"),
        ({"launch_mit_vector": 1}, "reserved bytes"),
        ({"key_info": 1 << 5}, "reserved bytes"),
        ({"signature_algo": 2}, "signature algorithm"),
        ({"key_info": 1 << 2}, "signing key"),
        ({"key_info": 7 << 2}, "signing key"),
        ({"reported_tcb": Tcb(3, 0, 8, 114).to_bytes()}, "TCB of the certificate"),
        ({"reported_tcb": b"\x03\x00\x01\x00\x00\x00\x08\x73"}, "TCB of the certificate"),
        ({"chip_id": b"x" * 64}, "chip id"),
        ({"vmpl": 0xFFFFFFFF}, "VMPL"),
        ({"vmpl": 4}, "VMPL"),
    ],
)
def test_what_is_wrong_in_a_signed_report_is_named(changes: dict[str, Any], name: str) -> None:
    assert name in failures(verdict(processor(), **changes))


@pytest.mark.parametrize("vmpl", range(4))
def test_a_guest_asks_at_the_highest_privilege_level_unless_another_is_wanted(vmpl: int) -> None:
    ours = processor()
    assert verdict(ours, vmpl=vmpl).verified == (vmpl == 0)
    assert verdict(ours, wanting(vmpl=None), vmpl=vmpl).verified
    for wanted in range(4):
        assert verdict(ours, wanting(vmpl=wanted), vmpl=vmpl).verified == (wanted == vmpl)


def test_debug_is_taken_when_it_is_allowed() -> None:
    assert verdict(processor(), wanting(allow_debug=True), policy=0xB0000).verified


def test_a_masked_chip_id_is_said() -> None:
    found = verdict(processor(), chip_id=bytes(64))
    assert found.verified
    assert any(check.name == "chip id" and "masked" in check.detail for check in found.checks)


@pytest.mark.parametrize("size", [0, 1183, 1185])
def test_a_report_of_another_size_is_none(size: int) -> None:
    with pytest.raises(ValueError, match="1184"):
        verify_report(bytes(size), (), wanting(), AMD_ONLY)


def test_a_report_without_certificates_is_not_signed() -> None:
    assert failures(verify_report(processor().signed(), (), wanting(), AMD_ONLY)) == ["signature"]
