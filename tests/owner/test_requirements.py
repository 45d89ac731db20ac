"""Requirements in a file: the same demands as options, every mistake at its place, and a schema that says the same."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from sevlaunch.errors import UsageError
from sevlaunch.owner.report_wanted import WantedReport
from sevlaunch.owner.requirements import Requirements, read_requirements, requirements_schema
from sevlaunch.profile.source import parse
from tests.conftest import ROOT, Command
from tests.owner.pki import Processor
from tests.owner.test_report_command import options, ours

__all__ = ["ours"]

ALL = f"""\
digest: "{bytes(range(48)).hex()}"
policy: [smt]
policy_at_most: [smt, migration-agent]
host_data: "{bytes(range(32)).hex()}"
id_key_digest: key.hex
author_key_digest: "{"00" * 48}"
family_id: "{"00" * 16}"
image_id: "{"00" * 16}"
require_id_block: false
require_author_key: no
min_guest_svn: 0
chip_ids:
  - "{bytes(range(1, 65)).hex()}"
  - "{"0a" * 8}"
min_tcb: {{snp: 8, microcode: 100}}
min_committed_tcb: {{boot_loader: 3}}
min_abi: "0.0.0"
platform: [no-smt, no-ecc]
mitigations: 0x0
report_id_ma: "{"00" * 32}"
no_migration_agent: false
vmpl: 0
"""
SCHEMA = requirements_schema()
VALIDATOR = Draft202012Validator(SCHEMA)


def written(text: str, folder: Path) -> Path:
    """The file of requirements, and a digest beside it."""
    (folder / "key.hex").write_text("00" * 48 + "\n")
    (folder / "require.yaml").write_text(text)
    return folder / "require.yaml"


def wanted(text: str, folder: Path) -> dict[str, Any]:
    """What a file wants of reports."""
    return read_requirements(written(text, folder)).wanted()


def test_all_of_it_is_read(tmp_path: Path) -> None:
    assert wanted(ALL, tmp_path) == {
        "digest": bytes(range(48)),
        "policy": 0x30000,
        "policy_at_most": 0x70000,
        "host_data": bytes(range(32)),
        "id_key_digest": bytes(48),
        "author_key_digest": bytes(48),
        "family_id": bytes(16),
        "image_id": bytes(16),
        "min_guest_svn": 0,
        "chip_ids": (bytes(range(1, 65)), b"\x0a" * 8),
        "min_tcb": {"snp": 8, "microcode": 100},
        "min_committed_tcb": {"boot_loader": 3},
        "min_abi": (0, 0, 0),
        "platform": {"smt": False, "ecc": False},
        "report_id_ma": bytes(32),
        "vmpl": 0,
    }
    assert wanted("vmpl: any", tmp_path) == {"vmpl": None}
    assert wanted("mitigations: 'f'", tmp_path) == {"mitigations": 15}
    assert wanted("require_id_block: true", tmp_path) == {"require_id_block": True}


def test_it_can_say_all_that_a_report_can_be_asked_for() -> None:
    """But for what is new with each report, and what takes less than usual."""
    left_out = {"report_data", "waived", "allow_debug"}
    assert set(Requirements.__struct_fields__) == set(WantedReport.__struct_fields__) - left_out


def test_every_mistake_is_at_its_place(tmp_path: Path) -> None:
    mistakes = {
        'digest: "12"': "1:9: digest: wanted a digest: can't read the file",
        "policy: [smy]": "2:9: policy: unknown SEV-SNP policy bit",
        "chip_ids: [1]": "3:12: chip_ids.0: wanted a chip id of 64 bytes, or since Turin, 8 bytes, found a number",
        "min_tcb: {snp: 256}": "4:16: min_tcb.snp: wanted a number of at most 255",
        "min_abi: 1.55": "5:10: min_abi: wanted a version such as 1.55 in quotes",
        "platform: [smtt]": "6:12: platform.0: wanted, each once, smt",
        "mitigations: -1": "7:14: mitigations: wanted a number of 64 bits",
        "vmpl: 4": "8:7: vmpl: wanted",
        "vmlp: 0": "9:1: vmlp: unknown key 'vmlp'; did you mean 'vmpl'?",
        "host_data: missing.bin": "10:12: host_data: wanted host data: can't read the file",
        "min_guest_svn: -1": "11:16: min_guest_svn: wanted",
        "min_guest_svn: 2": "12:1: duplicate key 'min_guest_svn'",
    }
    file = written("\n".join(mistakes), tmp_path)
    with pytest.raises(UsageError) as caught:
        read_requirements(file)
    found = [str(problem) for problem in caught.value.problems]
    assert len(found) == len(mistakes)
    for expected in mistakes.values():
        assert any(text.startswith(f"{file}:{expected}") for text in found), (expected, found)


@pytest.mark.parametrize("text", ["", "- a", "a: [", "platform: [smt, no-smt]", "platform: [ecc, ecc]"])
def test_a_file_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--require: "):
        read_requirements(written(text, tmp_path))


def values(text: str) -> Any:
    """The values of YAML text."""
    return parse(text, file="r.yaml", base=Path("/"), problems=[]).plain()


def test_the_schema_takes_what_the_reader_takes(tmp_path: Path, sevlaunch: Command) -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert sevlaunch("schema", "requirements").json == SCHEMA
    for text in (ALL.replace("no\n", "false\n"), "vmpl: any", "policy: 0x30000", "mitigations: 3"):
        assert list(VALIDATOR.iter_errors(values(text))) == []
    for text in ("vmpl: 4", "vmpl: some", "min_tcb: {snp: 256}", "platform: [smtt]", "more: 1", "min_abi: '1'"):
        assert not VALIDATOR.is_valid(values(text))
        with pytest.raises(UsageError):
            wanted(text, tmp_path)


# ---- the command


def test_a_report_is_checked_against_a_file(ours: Processor, tmp_path: Path, sevlaunch: Command) -> None:
    given: list[str | Path] = ["owner", "report", tmp_path / "report", *options(tmp_path)[:-3]]
    file = written(ALL.replace(f'host_data: "{bytes(range(32)).hex()}"\n', ""), tmp_path)
    document = sevlaunch(*given, "--any-report-data", "--require", file, "--format", "json").json
    names = {check["name"] for check in document["checks"]}
    assert {"measurement", "policy", "policy at most", "wanted chip", "minimum TCB, committed"} <= names
    (tmp_path / "report").write_bytes(ours.signed(committed_tcb=bytes(8)))
    result = sevlaunch(*given, "--any-report-data", "--require", file, check=1)
    assert "minimum TCB, committed" in result.stdout


def test_a_file_and_an_option_never_say_the_same(ours: Processor, tmp_path: Path, sevlaunch: Command) -> None:
    given: list[str | Path] = ["owner", "report", tmp_path / "report", *options(tmp_path)]
    file = written("vmpl: 0\nmin_tcb: {snp: 1}\n", tmp_path)
    sevlaunch(*given, "--require", file)
    for more in (["--vmpl", "0"], ["--min-tcb", "snp=1"], ["--any-vmpl"]):
        assert "say the same twice" in sevlaunch(*given, "--require", file, *more, check=2).stderr
    assert "contradict" in sevlaunch(*given, "--require", written(ALL, tmp_path), check=2).stderr
    assert "say the same twice" in sevlaunch(*given, "--vmpl", "1", "--any-vmpl", check=2).stderr


def test_what_demands_are_options_too(ours: Processor, tmp_path: Path, sevlaunch: Command) -> None:
    given: list[str | Path] = ["owner", "report", tmp_path / "report", *options(tmp_path)]
    chip = bytes(range(1, 65)).hex()
    sevlaunch(*given, "--chip-id", "00" * 8, "--chip-id", chip, "--min-committed-tcb", "snp=8")
    sevlaunch(*given, "--chip-id", "00" * 8, check=1)
    sevlaunch(*given, "--min-committed-tcb", "snp=9", check=1)
    assert "--min-committed-tcb: wanted" in sevlaunch(*given, "--min-committed-tcb", "snp", check=2).stderr
    sevlaunch(*given, "--require-id-block", check=1)
    sevlaunch(*given, "--require-author-key", check=1)
    sevlaunch(*given, "--min-abi", "0.0.1", check=1)
    with_policy = [one for one in given if one != "--any-policy"]
    sevlaunch(*with_policy, "--policy-at-most", "smt")
    sevlaunch(*with_policy, "--policy-at-most", "single-socket", check=1)
    assert "contradict" in sevlaunch(*given, "--policy-at-most", "smt", check=2).stderr
    (tmp_path / "report").write_bytes(ours.signed(vmpl=2))
    sevlaunch(*given, check=1)
    sevlaunch(*given, "--vmpl", "2")
    sevlaunch(*given, "--any-vmpl")


def test_the_documents_example_is_one(tmp_path: Path) -> None:
    text = (ROOT / "docs/attestation.md").read_text()
    (example,) = (block for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "chip_ids" in block)
    (tmp_path / "chips").mkdir()
    for name in ("one", "other"):
        (tmp_path / f"chips/{name}.bin").write_bytes(name.encode().ljust(64, b"\0"))
    assert len(wanted(example, tmp_path)["chip_ids"]) == 2
    assert list(VALIDATOR.iter_errors(values(example))) == []
