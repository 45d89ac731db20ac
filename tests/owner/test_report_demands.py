"""What may be demanded of an SNP report beside its signature: each demand is met, or named."""

from __future__ import annotations

from typing import Any

import pytest

from sevlaunch.errors import InsecureUse
from sevlaunch.owner.report import report_fields, report_lines
from sevlaunch.owner.report_wanted import ASKED, WantedReport, parse_abi, parse_platform, parse_tcb
from sevlaunch.sevapi.report import Tcb
from tests.owner.pki import processor
from tests.owner.reports import failures, verdict, wanting


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        (wanting(digest=bytes(48)), "measurement"),
        (wanting(policy=0x20000), "policy"),
        (wanting(host_data=bytes(32)), "host data"),
        (wanting(report_data=bytes(64)), "report data"),
        (wanting(id_key_digest=b"k" * 48), "id key digest"),
        (wanting(author_key_digest=b"k" * 48), "author key digest"),
        (wanting(min_tcb={"snp": 9}), "minimum TCB, reported"),
        (wanting(min_tcb={"fmc": 0}), "minimum TCB, reported"),
        (wanting(min_tcb=bytes([0, 0, 0, 0, 0, 0, 9, 0])), "minimum TCB, reported"),
        (wanting(vmpl=1), "VMPL"),
        (wanting(family_id=b"f" * 16), "family id"),
        (wanting(image_id=b"i" * 16), "image id"),
        (wanting(chip_ids=(bytes(64), bytes(8))), "wanted chip"),
        (wanting(chip_ids=(bytes(range(1, 9)),)), "wanted chip"),
        (wanting(policy_at_most=0x20000), "policy at most"),
        (wanting(require_id_block=True), "ID block"),
        (wanting(require_author_key=True), "author key"),
        (wanting(min_committed_tcb={"microcode": 116}), "minimum TCB, committed"),
        (wanting(min_committed_tcb=bytes([4, 0, 0, 0, 0, 0, 0, 0])), "minimum TCB, committed"),
        (wanting(report_id_ma=b"\xff" * 32), "report id of the migration agent"),
        (wanting(min_guest_svn=1), "guest SVN"),
        (wanting(min_abi=(1, 0)), "minimum ABI, current"),
        (wanting(min_abi=(0, 1)), "minimum ABI, committed"),
        (wanting(platform={"alias-check-complete": True}), "platform: alias-check-complete"),
        (wanting(mitigations=1), "mitigations, launch"),
        (wanting(mitigations=1), "mitigations, current"),
        # No migration agent is said by ones.
        (wanting(no_migration_agent=True), "migration agent"),
    ],
)
def test_what_is_not_as_wanted_is_named(wanted: WantedReport, name: str) -> None:
    assert name in failures(verdict(processor(), wanted))


def test_what_is_as_wanted_holds() -> None:
    ours = processor("Turin", version=3)
    wanted = wanting(
        digest=bytes(range(48)),
        policy=0x30000,
        host_data=bytes(range(32)),
        report_data=bytes(range(64)),
        min_tcb=parse_tcb("fmc=1,boot_loader=3,tee=0,snp=8,microcode=115"),
        vmpl=0,
    )
    assert verdict(ours, wanted).verified
    assert "minimum TCB, launch" in failures(verdict(ours, wanted, launch_tcb=Tcb(3, 0, 7, 115, 1).to_bytes()))


SAYS: dict[str, Any] = {
    "family_id": b"f" * 16,
    "image_id": b"i" * 16,
    "guest_svn": 7,
    "platform_info": 0x23 | 1 << 40,
    "report_id_ma": b"\xff" * 32,
    "launch_mit_vector": 0xB,
    "current_mit_vector": 0xF,
    **{f"{when}_{part}": number for when in ("current", "committed") for part, number in (("major", 1), ("minor", 55))},
}


def test_all_that_a_report_says_can_be_demanded_and_is_shown() -> None:
    ours = processor("Turin", version=5)
    wanted: dict[str, Any] = {
        "family_id": b"f" * 16,
        "image_id": b"i" * 16,
        "chip_ids": (bytes(8), bytes(range(1, 9))),
        "report_id_ma": b"\xff" * 32,
        "min_guest_svn": 7,
        "min_abi": (1, 55),
        "platform": parse_platform("smt,alias-check-complete,no-ecc"),
        "mitigations": 0xB,
        "min_tcb": parse_tcb("0x7300000008000301"),
        "no_migration_agent": True,
    }
    found = verdict(ours, wanting(**wanted), **SAYS)
    assert failures(found) == []
    assert report_fields(found)["platform_bits"] == ["smt", "tsme", "alias-check-complete", "bit40"]
    assert report_fields(found)["policy_bits"] == ["smt"]
    shown = dict(report_lines(found))
    assert shown["platform"] == "smt, tsme, alias-check-complete, bit40"
    assert (shown["guest SVN"], shown["migration agent"]) == ("7", "none")
    assert shown["firmware ABI"] == "1.55 build 0, committed 1.55 build 0"
    assert shown["mitigations"] == "launch 0xb, current 0xf"
    assert shown["launch TCB"] == "boot_loader=3,tee=0,snp=8,microcode=115,fmc=1"
    for changes, name in (
        ({"committed_minor": 54}, "minimum ABI, committed"),
        ({"current_minor": 54}, "minimum ABI, current"),
        ({"guest_svn": 6}, "guest SVN"),
        ({"platform_info": 0x27}, "platform: ecc"),
        ({"platform_info": 0x03}, "platform: alias-check-complete"),
        ({"launch_mit_vector": 0x9}, "mitigations, launch"),
        ({"current_mit_vector": 0x3}, "mitigations, current"),
        ({"policy": 0x70000}, "migration agent"),
        ({"report_id_ma": bytes(32)}, "migration agent"),
    ):
        assert name in failures(verdict(ours, wanting(**wanted), **{**SAYS, **changes})), name


# Bits of a policy: one that is always set, SMT, migration agent, debug, single socket, CXL.
ONE, SMT, AGENT, DEBUG, SINGLE, CXL = (1 << bit for bit in (17, 16, 18, 19, 20, 21))


@pytest.mark.parametrize(
    ("policy", "most", "within"),
    [
        (ONE, ONE, True),
        (ONE, ONE | SMT, True),
        (ONE | SMT, ONE, False),
        (ONE | AGENT, ONE | SMT, False),
        (ONE | DEBUG, ONE | SMT, False),
        (ONE | CXL, ONE, False),
        (ONE | SINGLE, ONE, True),
        (ONE, ONE | SINGLE, False),
        *((ONE, ONE | 1 << bit, False) for bit in (22, 23, 24, 25)),
        (ONE | 55 | 1 << 8, ONE | 55 | 1 << 8, True),
        (ONE | 54 | 1 << 8, ONE | 55 | 1 << 8, False),
        (ONE | 0 | 2 << 8, ONE | 55 | 1 << 8, True),
        # A bit that has no meaning yet may allow anything.
        (ONE | 1 << 40, ONE | 1 << 40, False),
    ],
)
def test_a_policy_allows_no_more_and_restricts_no_less(policy: int, most: int, within: bool) -> None:
    found = verdict(processor(), wanting(policy_at_most=most, allow_debug=True), policy=policy)
    assert failures(found) == ([] if within else ["policy at most"])


def test_a_policy_at_most_is_a_policy_that_is_asked_for() -> None:
    ours = processor()
    wanted = WantedReport(digest=bytes(range(48)), policy_at_most=0x30000, report_data=bytes(range(64)))
    assert verdict(ours, wanted).verified
    assert "policy" not in verdict(ours, wanted).not_compared


def test_an_id_block_and_an_author_key_are_seen() -> None:
    ours = processor()
    wanted = wanting(require_id_block=True, require_author_key=True)
    says: dict[str, Any] = {"id_key_digest": b"k" * 48, "author_key_digest": b"a" * 48, "key_info": 1}
    assert verdict(ours, wanted, **says).verified
    for changes, name in (
        ({"id_key_digest": bytes(48)}, "ID block"),
        ({"author_key_digest": bytes(48)}, "author key"),
        ({"key_info": 0}, "author key"),
    ):
        assert failures(verdict(ours, wanted, **{**says, **changes})) == [name]


def test_a_processor_that_is_hidden_is_none_that_is_wanted() -> None:
    """Whoever lists zeros for a chip has none in mind."""
    for wanted in (bytes(8), bytes(64)):
        assert failures(verdict(processor(), wanting(chip_ids=(wanted,)), chip_id=bytes(64))) == ["wanted chip"]


def test_a_build_counts_within_its_version() -> None:
    for build, least, enough in (
        (21, (1, 55, 21), True),
        (20, (1, 55, 21), False),
        (0, (1, 54, 99), True),
        (99, (1, 56, 0), False),
    ):
        says = {**SAYS, "current_build": build, "committed_build": build}
        found = failures(verdict(processor(version=5), wanting(min_abi=least), **says))
        assert found == ([] if enough else ["minimum ABI, current", "minimum ABI, committed"])
    says = {**SAYS, "current_build": 21, "committed_build": 20}
    assert failures(verdict(processor(version=5), wanting(min_abi=(1, 55, 21)), **says)) == ["minimum ABI, committed"]


@pytest.mark.parametrize("text", ["", "1", "1.", "1.2.3.4", "1.256", "-1.2", "1.2 ", "1.٣"])
def test_a_version_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="such as"):
        parse_abi(text)
    assert (parse_abi("1.55"), parse_abi("1.55.21")) == ((1, 55), (1, 55, 21))


def test_a_minor_abi_counts_within_its_major_one() -> None:
    says = {**SAYS, "current_major": 2, "current_minor": 0, "committed_major": 2, "committed_minor": 0}
    assert failures(verdict(processor(version=5), wanting(min_abi=(1, 55)), **says)) == []


@pytest.mark.parametrize("missing", ASKED)
def test_an_answer_that_would_prove_nothing_is_refused_unless_it_is_waived_by_name(missing: str) -> None:
    ours = processor()
    given = {"digest": bytes(range(48)), "policy": 0x30000, "report_data": bytes(range(64))}
    assert verdict(ours, WantedReport(**given)).verified  # type: ignore[arg-type]
    left: dict[str, Any] = {name: value for name, value in given.items() if name != missing}
    with pytest.raises(InsecureUse, match=ASKED[missing]):
        verdict(ours, WantedReport(**left))
    assert verdict(ours, WantedReport(**left, waived=frozenset([missing]))).verified
    assert not verdict(ours, WantedReport(**left, waived=frozenset([missing])), vmpl=9).verified


@pytest.mark.parametrize("text", ["", "smt,smt", "no-smt,smt", "bit6", "no-", "SMT", "smt,,ecc"])
def test_demands_of_a_platform_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="--platform"):
        parse_platform(text)


def test_a_minimum_tcb_goes_up_to_a_byte() -> None:
    assert parse_tcb("snp=255, tee=0") == {"snp": 255, "tee": 0}
    assert parse_tcb("snp=0xff,tee=0X0,microcode=010") == {"snp": 255, "tee": 0, "microcode": 10}
    assert parse_tcb("0xDB18000000000004") == bytes([4, 0, 0, 0, 0, 0, 0x18, 0xDB])


@pytest.mark.parametrize("text", ["", "snp", "snp=", "snp=256", "snp=-1", "snp=1,", "other=1", "snp=²"])
def test_a_minimum_tcb_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="--min-tcb"):
        parse_tcb(text)
