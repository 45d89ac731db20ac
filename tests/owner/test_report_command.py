"""`owner report`: what it reads, prints and answers."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Command
from tests.owner.pki import Processor, der, pem, processor
from tests.owner.spoiled import SPOILED, spoiled
from tests.owner.test_session import FORMS
from tests.published import vector


@pytest.fixture
def ours(tmp_path: Path) -> Processor:
    """A processor, with its certificates in the folder `certs` and a report in `report`."""
    made = processor(version=3)
    (tmp_path / "certs").mkdir()
    (tmp_path / "certs/chain.pem").write_bytes(pem(*made.certificates[1:]))
    (tmp_path / "certs/vcek.der").write_bytes(der(made.certificates[0]))
    (tmp_path / "root.pem").write_bytes(pem(made.certificates[2]))
    (tmp_path / "report").write_bytes(made.signed())
    return made


WAIVED: list[str | Path] = ["--any-digest", "--any-policy", "--any-report-data"]


def trusting(folder: Path) -> list[str | Path]:
    """The certificates of ``ours``, trusted."""
    return ["--certs", folder / "certs", "--root", folder / "root.pem", "--at", "2026-01-01"]


def options(folder: Path) -> list[str | Path]:
    """The certificates of ``ours``, trusted, and nothing asked for."""
    return [*trusting(folder), *WAIVED]


def evidence(made: Processor, **changes: Any) -> str:
    """Evidence of a launch as a rehearsal writes it."""
    document = {
        "name": "guest",
        "state": "running",
        "pid": 4711,
        "profile": "guest.yaml",
        "command": ["qemu-system-x86_64"],
        "rehearsal": True,
        "qemu": {"binary": "/usr/bin/qemu-system-x86_64", "version": "10.0.2"},
        "firmware": {"path": "/ovmf.fd", "sha256": "00" * 32},
        "vcpus": 1,
        "sev": {
            "type": "sev-snp",
            "enabled": True,
            "state": "running",
            "policy": 0x30000,
            "api_major": 1,
            "api_minor": 55,
            "build_id": 21,
            "handle": None,
        },
        "measurement": None,
        "report": base64.b64encode(made.signed()).decode(),
        "certificates": [base64.b64encode(der(one)).decode() for one in made.certificates],
        **changes,
    }
    return json.dumps(document)


def test_the_real_report_is_answered_with_yes(tmp_path: Path, sevlaunch: Command) -> None:
    (tmp_path / "report.hex").write_bytes(vector("milan-report.hex"))
    (tmp_path / "certs").mkdir()
    (tmp_path / "certs/a").write_bytes(vector("milan-vcek.der"))
    (tmp_path / "certs/b").write_bytes(vector("milan-chain.pem"))
    given: list[str | Path] = [
        "owner",
        "report",
        tmp_path / "report.hex",
        "--certs",
        tmp_path / "certs",
        "--at",
        "2026-01-01",
        "--any-report-data",
        "--any-policy",
    ]
    result = sevlaunch(*given, "--any-digest")
    assert result.stdout.endswith("yes: every check holds\n")
    assert "not compared, as not asked for: measurement, policy" in result.stdout
    assert result.stderr == ""
    document = sevlaunch(*given, "--any-digest", "--format", "json").json
    assert (document["ok"], document["rehearsal"], document["generation"]) == (True, False, "Milan")
    assert document["report"]["policy"] == 0x30000
    assert "no: a check fails" in sevlaunch(*given, "--digest", "00" * 48, check=1).stdout


@pytest.mark.parametrize("form", FORMS)
def test_a_report_is_read_in_each_form(form: str, ours: Processor, tmp_path: Path, sevlaunch: Command) -> None:
    (tmp_path / "report").write_bytes(FORMS[form](ours.signed()))
    sevlaunch("owner", "report", tmp_path / "report", *options(tmp_path))


def test_everything_that_can_be_asked_for(ours: Processor, tmp_path: Path, sevlaunch: Command) -> None:
    wanted = ["--digest", bytes(range(48)).hex(), "--policy", "smt", "--host-data", bytes(range(32)).hex()]
    wanted += ["--report-data", bytes(range(64)).hex(), "--min-tcb", "snp=8,microcode=100", "--vmpl", "0"]
    wanted += ["--id-key-digest", "00" * 48, "--author-key-digest", "00" * 48]
    document = sevlaunch("owner", "report", tmp_path / "report", *trusting(tmp_path), *wanted, "--format", "json").json
    assert document["not_compared"] == ["revocation lists"]
    names = {check["name"] for check in document["checks"]}
    assert {"measurement", "policy", "host data", "report data", "minimum TCB, launch", "VMPL"} <= names


def test_without_a_root_ours_is_not_amds(ours: Processor, tmp_path: Path, sevlaunch: Command) -> None:
    given: list[str | Path] = [
        "owner",
        "report",
        tmp_path / "report",
        "--certs",
        tmp_path / "certs",
        "--at",
        "2026-01-01",
        *WAIVED,
    ]
    assert "REHEARSAL or unknown root: " in sevlaunch(*given, check=1).stdout


def test_debug_has_to_be_allowed(ours: Processor, tmp_path: Path, sevlaunch: Command) -> None:
    (tmp_path / "report").write_bytes(ours.signed(policy=0xB0000))
    given: list[str | Path] = ["owner", "report", tmp_path / "report", *options(tmp_path)]
    sevlaunch(*given, check=1)
    sevlaunch(*given, "--allow-debug")


def test_a_rehearsal_is_refused_unless_asked_for_and_then_marked(
    ours: Processor, tmp_path: Path, sevlaunch: Command
) -> None:
    (tmp_path / "evidence.json").write_text(evidence(ours))
    given: list[str | Path] = ["owner", "report", tmp_path / "evidence.json", *WAIVED[1:]]
    refused = sevlaunch(*given, check=9)
    assert (refused.stdout, "rehearsal" in refused.stderr) == ("", True)
    result = sevlaunch(*given, "--any-digest", "--rehearsal")
    assert "REHEARSAL, which proves nothing: yes" in result.stdout
    assert sevlaunch(*given, "--any-digest", "--rehearsal", "--format", "json").json["rehearsal"] is True
    sevlaunch(*given, "--rehearsal", "--digest", "00" * 48, check=1)


def test_evidence_of_a_launch_gives_certificates_only_where_no_folder_does(
    ours: Processor, tmp_path: Path, sevlaunch: Command
) -> None:
    (tmp_path / "e").write_text(evidence(ours, rehearsal=False))
    trusted = options(tmp_path)
    sevlaunch("owner", "report", tmp_path / "e", *trusted[2:])
    sevlaunch("owner", "report", tmp_path / "e", "--at", "2026-01-01", *WAIVED, check=1)
    (tmp_path / "e").write_text(evidence(processor(), rehearsal=False))
    sevlaunch("owner", "report", tmp_path / "e", *trusted, check=1)


@pytest.mark.parametrize(
    "changes",
    [
        {"report": None},
        {"report": "AAAA"},
        {"report": "!"},
        {"report": 3},
        # Bits of the last character that stand for nothing.
        {"report": base64.b64encode(bytes(1184)).decode().removesuffix("A=") + "B="},
        {"rehearsal": "yes"},
        {"certificates": [1]},
        {"certificates": ["AAAA"]},
        {"certificates": "x"},
    ],
)
def test_evidence_that_is_none_is_unreadable(
    changes: dict[str, Any], ours: Processor, tmp_path: Path, sevlaunch: Command
) -> None:
    (tmp_path / "e").write_text(evidence(ours, **changes))
    result = sevlaunch("owner", "report", tmp_path / "e", "--rehearsal", check=7)
    assert (result.stdout, "Traceback" in result.stderr) == ("", False)


@pytest.mark.parametrize("content", ["{", "{}", '{"report": ' + "[" * 100_000, '{"a": 1} x', "{\xff"])
def test_json_that_is_none_is_unreadable(content: str, tmp_path: Path, sevlaunch: Command) -> None:
    (tmp_path / "e").write_bytes(content.encode("latin-1"))
    stderr = sevlaunch("owner", "report", tmp_path / "e", check=7).stderr
    assert "the evidence in" in stderr
    assert "Traceback" not in stderr


@pytest.mark.parametrize("kind", SPOILED)
def test_files_that_are_no_report_are_unreadable(
    kind: str, ours: Processor, tmp_path: Path, sevlaunch: Command
) -> None:
    file = spoiled(kind, ours.signed(), tmp_path / "spoiled")
    result = sevlaunch("owner", "report", file, *options(tmp_path), check=7)
    assert "spoiled" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("kind", SPOILED)
def test_files_that_are_no_certificates_are_named(
    kind: str, ours: Processor, tmp_path: Path, sevlaunch: Command
) -> None:
    vcek = tmp_path / "certs/vcek.der"
    spoiled(kind, vcek.read_bytes(), vcek)
    result = sevlaunch("owner", "report", tmp_path / "report", *options(tmp_path), check=7)
    assert "not a certificate: vcek.der" in result.stderr
    assert spoiled(kind, b"x", tmp_path / "root.pem")
    assert "root.pem" in sevlaunch("owner", "report", tmp_path / "report", *options(tmp_path), check=2).stderr


@pytest.mark.parametrize(
    "wrong",
    [
        ["--digest", "12"],
        ["--policy", "what"],
        ["--host-data", "00" * 31],
        ["--report-data", "0x"],
        ["--min-tcb", "snp"],
        ["--vmpl", "4"],
        ["--certs", "/missing"],
        ["--root", "/missing"],
        ["--at", "yesterday"],
    ],
)
def test_wrong_values_are_wrong_usage(wrong: list[str], ours: Processor, tmp_path: Path, sevlaunch: Command) -> None:
    sevlaunch("owner", "report", tmp_path / "report", *options(tmp_path), *wrong, check=2)


def test_a_report_alone_is_wrong_usage(ours: Processor, tmp_path: Path, sevlaunch: Command) -> None:
    assert "--certs" in sevlaunch("owner", "report", tmp_path / "report", check=2).stderr
    assert "can't read" in sevlaunch("owner", "report", tmp_path / "missing", check=2).stderr
