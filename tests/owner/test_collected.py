"""Reports as collectors write them: each form is read, byte for byte, and what is none is unreadable and never a no."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sevlaunch.errors import EvidenceError
from sevlaunch.owner.collected import ReportFile
from sevlaunch.owner.report_file import read_report
from sevlaunch.sevapi.protobuf import parse_message
from sevlaunch.sevapi.report import Tcb
from sevlaunch.sevapi.report_response import make_response
from tests.conftest import Command
from tests.owner import collectors
from tests.owner.pki import Processor, der, pem, processor
from tests.owner.reports import real_report
from tests.owner.test_report_command import WAIVED, options, ours, trusting
from tests.published import reports, vector

__all__ = ["ours"]

MADE = processor("Genoa", version=5)
REPORT = MADE.signed(launch_mit_vector=3, current_mit_vector=1 << 63, platform_info=0x25, cpuid_stepping=2)
TURIN = processor("Turin", version=5)
VCEK, ASK, ARK = MADE.certificates
TABLE = collectors.host_table(("VCEK", VCEK), ("ASK", ASK), ("ARK", ARK))
CHAIN = {1: der(VCEK), 2: der(ASK), 3: der(ARK)}
RESPONSE = make_response(REPORT)
NAMED = (("VCEK", VCEK), ("ASK", ASK), ("ARK", ARK))
AZURE = b"HCLA" + bytes(28) + REPORT + bytes(1384)

# What is written, and how many certificates come with it.
FORMS: dict[str, tuple[bytes, int]] = {
    "base64url": (base64.urlsafe_b64encode(REPORT), 0),
    "base64url without padding": (base64.urlsafe_b64encode(REPORT).rstrip(b"=") + b"\n", 0),
    "the processor's answer": (RESPONSE, 0),
    "the processor's answer without its end": (RESPONSE[: 32 + 1184], 0),
    "the processor's answer in base64": (base64.encodebytes(RESPONSE), 0),
    "the processor's answer and a table": (RESPONSE + TABLE, 3),
    "the processor's answer without its end, and a table": (RESPONSE[: 32 + 1184] + TABLE, 3),
    "an extended report": (REPORT + TABLE, 3),
    "an extended report with pages of zeros": (REPORT + TABLE.ljust(0x5000, b"\0"), 3),
    "Azure's HCL report": (AZURE, 0),
    "go-sev-guest's message": (collectors.go_attestation(REPORT, CHAIN, product=2), 3),
    "go-sev-guest's message alone": (collectors.go_attestation(REPORT, {}), 0),
    "go-sev-guest's message in base64url": (base64.urlsafe_b64encode(collectors.go_attestation(REPORT, CHAIN)), 3),
    "trustee's evidence": (collectors.as_json(collectors.trustee_evidence(REPORT, *NAMED)), 3),
    "trustee's evidence without certificates": (collectors.as_json(collectors.trustee_evidence(REPORT)), 0),
    "trustee's request": (
        collectors.as_json(
            {"primary_evidence": collectors.trustee_evidence(REPORT, *NAMED), "additional_evidence": "{}"}
        ),
        3,
    ),
    "trustee's evidence from Azure": (
        collectors.as_json(
            {
                "version": 2,
                "tpm_quote": {"pcrs": []},
                "hcl_report": base64.urlsafe_b64encode(AZURE).decode(),
                "vcek": base64.urlsafe_b64encode(der(VCEK)).decode(),
            }
        ),
        1,
    ),
    "trustee's old evidence from Azure": (
        collectors.as_json({"quote": {"pcrs": []}, "report": list(AZURE), "vcek": pem(VCEK).decode()}),
        1,
    ),
}


def read(content: bytes, folder: Path) -> ReportFile:
    """The report in a file of this content."""
    (folder / "collected").write_bytes(content)
    return read_report(folder / "collected")


@pytest.mark.parametrize("form", FORMS)
def test_each_form_is_read_to_the_last_byte(form: str, tmp_path: Path) -> None:
    content, certificates = FORMS[form]
    found = read(content, tmp_path)
    assert found.content == REPORT
    assert [der(one) for one in found.certificates] == [der(one) for one in MADE.certificates[:certificates]]
    assert (found.skipped, found.rehearsal) == ((), False)


@pytest.mark.parametrize("generation", ["Milan", "Turin"])
def test_each_layout_of_a_tcb_is_read(generation: str, tmp_path: Path) -> None:
    made = processor(generation, version=5).signed()
    assert read(collectors.as_json(collectors.trustee_evidence(made)), tmp_path).content == made
    assert read(collectors.go_attestation(made, {}), tmp_path).content == made


def test_trustees_fields_that_a_version_does_not_have_are_left_out_or_null(tmp_path: Path) -> None:
    made = processor("Milan", version=2).signed()
    evidence = collectors.trustee_evidence(made)
    for name in ("cpuid_fam_id", "cpuid_mod_id", "cpuid_step"):
        evidence["attestation_report"][name] = None
    for name in ("launch_mit_vector", "current_mit_vector"):
        del evidence["attestation_report"][name]
    assert read(collectors.as_json(evidence), tmp_path).content == made


def test_certificates_of_a_message_may_be_of_a_vlek(tmp_path: Path) -> None:
    made = processor(vlek=True)
    vlek, asvk, _ = made.certificates
    found = read(collectors.go_attestation(made.signed(), {2: der(asvk), 6: der(vlek)}), tmp_path)
    assert {der(one) for one in found.certificates} == {der(asvk), der(vlek)}
    found = read(collectors.as_json(collectors.trustee_evidence(made.signed(), ("VLEK", vlek))), tmp_path)
    assert [der(one) for one in found.certificates] == [der(vlek)]


def test_messages_of_real_reports_are_those_of_the_publishers_own_format(tmp_path: Path) -> None:
    """The hashes are of what protobuf's library wrote with go-sev-guest's proto/sevsnp.proto of 2025-11."""
    milan = collectors.go_attestation(real_report(), {1: vector("milan-vcek.der")}, product=1)
    assert hashlib.sha256(milan).hexdigest() == "c4e9539d1b8b141376adec97577a20991b27c8dcdea5dd22b71caa8fdd20ca66"
    assert read(milan, tmp_path).content == real_report()
    report = (reports("ms-turin") / "report.bin").read_bytes()
    turin = collectors.go_attestation(report, {}, product=1)
    # An empty chain is there in protobuf's library, and left out here.
    assert read(turin, tmp_path).content == report


@pytest.mark.parametrize("folder", ["ms-turin", "routex-milan-v3", "lunal-genoa-evidence", "trustee-vlek"])
def test_real_reports_survive_each_form(folder: str, tmp_path: Path) -> None:
    report = (reports(folder) / "report.bin").read_bytes()
    assert read(collectors.as_json(collectors.trustee_evidence(report)), tmp_path).content == report
    assert read(collectors.go_attestation(report, {}), tmp_path).content == report


def changed(**fields: Any) -> bytes:
    """Trustee's evidence with some fields of the report changed; None: left out."""
    evidence = collectors.trustee_evidence(REPORT)
    report = {**evidence["attestation_report"], **fields}
    return collectors.as_json({"attestation_report": {k: v for k, v in report.items() if v is not None}})


GO = collectors.go_report(REPORT)


def go(fields: bytes) -> bytes:
    """go-sev-guest's message with a report of these fields."""
    return collectors.field(1, fields)


UNREADABLE: dict[str, tuple[bytes, str]] = {
    "a refusal": (b"\x16" + bytes(3999), "status 0x16"),
    "an answer of another size": (b"\0\0\0\0\x9f\x04" + RESPONSE[6:], "report of 1183 bytes"),
    "an answer that is cut short": (RESPONSE[:1000], "ends after 968"),
    "an answer with something behind it": (RESPONSE + b"x" * 40, "no table of certificates"),
    "a report with something behind it": (REPORT + b"x", "no table of certificates"),
    "an HCL report that is cut short": (AZURE[:1000], ""),
    "a message without its end": (collectors.go_attestation(REPORT, CHAIN)[:-1], "cut short"),
    "a message without a report": (b"\x0a\x00", "wanted 16"),
    "a field twice": (go(collectors.message(GO) + collectors.field(3, 1)), "more than once"),
    "a field of another type": (go(collectors.message({**GO, 3: b"x"})), "of another type"),
    "a field that is not known": (go(collectors.message({**GO, 32: 1})), "fields [32]"),
    "a number that is too large": (go(collectors.message({**GO, 1: 1 << 32})), "wanted 32 bits"),
    "a version that is too large": (go(collectors.message({**GO, 23: 256})), "wanted 8 bits"),
    "octets too few": (go(collectors.message({**GO, 12: bytes(47)})), "has 47 bytes: wanted 48"),
    "a signature without its end": (go(collectors.message({**GO, 28: bytes(144)})), "has 144 bytes: wanted 512"),
    "evidence with a field that is not known": (changed(more=1), "unknown key"),
    "evidence without a field": (changed(vmpl=None), "is required"),
    "evidence with octets too few": (changed(measurement=[0] * 47), "measurement"),
    "evidence with an octet too large": (changed(measurement=[256] * 48), "measurement"),
    "evidence with a policy too large": (changed(policy=1 << 64), "policy: wanted 64 bits"),
    "evidence with a negative policy": (changed(policy=-1), "policy: wanted 64 bits"),
    "evidence of another TEE": (collectors.as_json({"primary_evidence": {"quote": "AAAA"}}), ""),
    "evidence that is no object": (collectors.as_json({"primary_evidence": 3}), ""),
    "evidence with a spoiled HCL report": (
        collectors.as_json({"version": 1, "tpm_quote": {}, "hcl_report": "!", "vcek": ""}),
        "hcl_report: wanted base64url",
    ),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_is_none_is_unreadable(case: str, tmp_path: Path) -> None:
    content, reason = UNREADABLE[case]
    with pytest.raises(EvidenceError) as caught:
        read(content, tmp_path)
    assert reason in str(caught.value)


@given(st.binary(max_size=60))
def test_a_message_of_any_bytes_is_read_or_refused(content: bytes) -> None:
    try:
        fields = parse_message(content)
    except ValueError:
        return
    assert all(isinstance(one, int | bytes) for values in fields.values() for one in values)


@pytest.mark.parametrize(
    "end", [b"\x00", b"\x08", b"\x08\x80", b"\x08" + b"\xff" * 10, b"\x0b", b"\x12\x05a", b"\x15abc"]
)
def test_a_message_that_is_none_is_refused(end: bytes) -> None:
    with pytest.raises(ValueError, match="message"):
        parse_message(collectors.field(1, 7) + end)
    assert parse_message(collectors.field(1, 7) + b"\x15abcd" + b"\x19abcdefgh") == {
        1: [7],
        2: [b"abcd"],
        3: [b"abcdefgh"],
    }


def test_a_damaged_certificate_of_a_collector_is_named(tmp_path: Path) -> None:
    evidence = collectors.trustee_evidence(REPORT, *NAMED)
    evidence["cert_chain"][1]["data"] = [1, 2, 3]
    evidence["cert_chain"].append({"cert_type": {"OTHER": "00000000-0000-0000-0000-000000000001"}, "data": [1]})
    found = read(collectors.as_json(evidence), tmp_path)
    assert (len(found.certificates), [text.partition(":")[0] for text in found.skipped]) == (2, ["ASK", "{'OTHER'"])
    found = read(collectors.go_attestation(REPORT, {**CHAIN, 2: b"damaged"}), tmp_path)
    assert (len(found.certificates), [text.partition(":")[0] for text in found.skipped]) == (2, ["ASK"])


# ---- what can't be read is never a no


@pytest.mark.parametrize("name", ["vcek.der", "chain.pem"])
def test_what_may_be_in_a_file_that_cant_be_read_leaves_no_answer(
    name: str, ours: Processor, tmp_path: Path, sevlaunch: Command
) -> None:
    (tmp_path / "certs" / name).write_bytes(b"-----BEGIN CERTIFICATE-----\nspoiled\n-----END CERTIFICATE-----\n")
    result = sevlaunch("owner", "report", tmp_path / "report", *options(tmp_path), check=7)
    assert result.stdout == ""
    assert name in result.stderr
    assert "https://kdsintf.amd.com/vcek/v1/Milan/" in result.stderr


def test_a_file_that_nothing_is_lacking_from_does_not_matter(
    ours: Processor, tmp_path: Path, sevlaunch: Command
) -> None:
    (tmp_path / "certs/notes.txt").write_text("where these came from")
    assert "notes.txt" in sevlaunch("owner", "report", tmp_path / "report", *options(tmp_path)).stderr
    # The key of this processor is there, and did not sign this: that is a no.
    (tmp_path / "report").write_bytes(ours.signed()[:-400] + bytes(400))
    sevlaunch("owner", "report", tmp_path / "report", *options(tmp_path), check=1)


def test_what_is_lacking_is_named_with_its_address(ours: Processor, tmp_path: Path, sevlaunch: Command) -> None:
    given: list[str | Path] = ["owner", "report", tmp_path / "report", *options(tmp_path)]
    chip, tcb = bytes(range(1, 65)).hex(), "blSPL=03&teeSPL=00&snpSPL=08&ucodeSPL=115"
    address = f"https://kdsintf.amd.com/vcek/v1/Milan/{chip}?{tcb}"
    (tmp_path / "certs/vcek.der").unlink()
    result = sevlaunch(*given, check=1)
    assert f"lacking, and to be had: VCEK: {address}\n" in result.stdout
    assert sevlaunch(*given, "--format", "json", check=1).json["lacks"] == [{"name": "VCEK", "where": address}]
    # Without any certificate nothing is checked.
    alone = sevlaunch("owner", "report", tmp_path / "report", *WAIVED, check=2)
    assert address in alone.stderr
    # One for another TCB does not help.
    (tmp_path / "certs/vcek.der").write_bytes(der(processor(tcb=Tcb(3, 0, 8, 116)).certificates[0]))
    assert sevlaunch(*given, "--format", "json", check=1).json["lacks"] == [{"name": "VCEK", "where": address}]
    (tmp_path / "certs/vcek.der").write_bytes(der(ours.certificates[0]))
    (tmp_path / "certs/chain.pem").write_bytes(pem(ours.certificates[1]))
    chain = "https://kdsintf.amd.com/vcek/v1/Milan/cert_chain"
    assert sevlaunch(*given, "--format", "json", check=1).json["lacks"] == [{"name": "ARK", "where": chain}]


def test_where_amd_does_not_have_it_that_is_said(ours: Processor, tmp_path: Path, sevlaunch: Command) -> None:
    given: list[str | Path] = ["owner", "report", tmp_path / "report", *WAIVED]
    for report, words in (
        (processor(vlek=True).signed(), "VLEK: the host has it"),
        (ours.signed(chip_id=bytes(64)), "VCEK: the report does not say which processor made it"),
        (ours.signed(version=2, cpuid_family=0, cpuid_model=0), "/vcek/v1/Milan/"),
        (ours.signed(version=2, cpuid_family=0, cpuid_model=0), " or https://kdsintf.amd.com/vcek/v1/Genoa/"),
        (TURIN.signed(version=2, cpuid_family=0, cpuid_model=0), "/vcek/v1/Turin/0102030405060708?fmcSPL=01&"),
        (ours.signed(key_info=7 << 2), "no key has signed"),
    ):
        (tmp_path / "report").write_bytes(report)
        assert words in sevlaunch(*given, check=2).stderr


def test_certificates_that_came_along_serve_where_a_folder_has_issuers_alone(
    ours: Processor, tmp_path: Path, sevlaunch: Command
) -> None:
    evidence = collectors.trustee_evidence(ours.signed(), ("VCEK", ours.certificates[0]))
    (tmp_path / "report").write_bytes(collectors.as_json(evidence))
    (tmp_path / "certs/vcek.der").unlink()
    sevlaunch("owner", "report", tmp_path / "report", *trusting(tmp_path), *WAIVED)
    # One that has a key says which one.
    (tmp_path / "certs/vcek.der").write_bytes(der(processor("Genoa").certificates[0]))
    sevlaunch("owner", "report", tmp_path / "report", *trusting(tmp_path), *WAIVED, check=1)


def test_a_report_that_nobody_signed_is_said_to_be_that(ours: Processor, tmp_path: Path, sevlaunch: Command) -> None:
    (tmp_path / "report").write_bytes(ours.signed(key_info=7 << 2)[:-512] + bytes(512))
    result = sevlaunch("owner", "report", tmp_path / "report", *options(tmp_path), check=1)
    assert "no key has signed it, as the report says itself" in result.stdout


@pytest.mark.parametrize("version", [3, 6])
def test_a_byte_behind_the_signature_is_called_that(
    version: int, ours: Processor, tmp_path: Path, sevlaunch: Command
) -> None:
    for at, name in ((0x330, "byte 0x330"), (0x49F, "byte 0x49f")):
        content = bytearray(ours.signed(version=version))
        content[at] = 1
        (tmp_path / "report").write_bytes(bytes(content))
        found = sevlaunch("owner", "report", tmp_path / "report", *options(tmp_path), "--format", "json", check=1).json
        details = {check["name"]: (check["ok"], check["detail"]) for check in found["checks"]}
        assert details["reserved bytes"] == (False, f"not zero: {name} behind the signature")
        assert details["signature"][0] is True
