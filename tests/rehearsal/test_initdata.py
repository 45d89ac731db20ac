"""A launch with init-data: HOST_DATA in the report, the disk that the guest gets, and who notices a change."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sevlaunch.image.in_guest import PROGRAM, write_seed_check
from sevlaunch.image.initdata import initdata_disk
from tests import needs
from tests.conftest import PROFILES, Command
from tests.image.test_seed import KEY, read_back
from tests.rehearsal.owner import rehearsed
from tests.rehearsal.test_id_blocks import launch
from tests.rehearsal.test_snp import POLICY, SNP_VERSIONS, expected_digest, finished, report_of

BOUND = (
    "--set", f"first_boot={{ssh_keys: ['{KEY}'], run: [touch /ran]}}",
    "--set", "initdata={bind: [first_boot], data: {aa.toml: one}}",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _kvm() -> None:
    needs.rehearsal()


def owner_s_report(command: Command, evidence: Path, *more: str | Path, check: int = 0) -> str:
    """What the owner's check of the report says."""
    wanted = ("--digest", expected_digest(1).hex(), "--policy", hex(POLICY), "--any-report-data", "--rehearsal")
    return command("owner", "report", evidence, *wanted, *more, check=check).stdout


@pytest.mark.parametrize("version", SNP_VERSIONS)
def test_host_data_is_the_digest_of_what_the_guest_gets(version: str, sevlaunch: Command, base: Path) -> None:
    document = base / "initdata.toml"
    document.write_text(sevlaunch("owner", "initdata", PROFILES / "sev-snp.yaml", *BOUND).stdout)
    rehearsed(sevlaunch, "sev-snp", version, None, *BOUND)
    folder = sevlaunch.runtime / "sev-snp"
    assert (folder / "initdata.img").read_bytes() == initdata_disk(document.read_bytes())
    assert (folder / "initdata.img").stat().st_mode & 0o777 == 0o600
    blocks = sevlaunch("qmp", "sev-snp", "query-block").json
    (disk,) = (one["inserted"] for one in blocks if one.get("inserted", {}).get("node-name") == "initdata")
    assert disk["ro"]
    evidence = finished(sevlaunch)
    report = report_of(evidence)
    told = sevlaunch("owner", "initdata", PROFILES / "sev-snp.yaml", *BOUND, "--format", "json").json
    assert report.host_data.hex() == told["host_data"]
    # It is no part of the digest.
    assert report.measurement == expected_digest(1)

    (base / "evidence.json").write_text(json.dumps(evidence))
    assert "yes: every check holds" in owner_s_report(sevlaunch, base / "evidence.json", "--initdata", document)
    other = base / "other.toml"
    other.write_text(document.read_text().replace("one", "two"))
    refused = owner_s_report(sevlaunch, base / "evidence.json", "--initdata", other, check=1)
    assert "host data" in refused and "no: a check fails" in refused
    sevlaunch("down", "sev-snp", "--now")


def test_the_guest_checks_its_seed_with_the_report_of_its_launch(sevlaunch: Command, base: Path) -> None:
    rehearsed(sevlaunch, "sev-snp", "11.1", None, *BOUND)
    folder, seed = sevlaunch.runtime / "sev-snp", base / "seed"
    shutil.copy(folder / "initdata.img", base / "disk")
    seed.mkdir()
    for name, content in read_back((folder / "seed.iso").read_bytes(), "joliet_path").items():
        (seed / name).write_bytes(content)
    (base / "report").write_bytes(base64.b64decode(finished(sevlaunch)["report"]))
    write_seed_check(base / "root")
    command: list[str | Path] = [
        sys.executable, "-I", "-S", base / "root" / PROGRAM, "--initdata", base / "disk", "--seed", seed,
        "--report", base / "report", "--to", base / "to",
    ]  # fmt: skip
    assert subprocess.run(command, timeout=60).returncode == 0
    assert {file.name for file in (base / "to").iterdir()} == {"meta-data", "user-data"}
    (seed / "user-data").write_bytes((seed / "user-data").read_bytes().replace(b"/ran", b"/run"))
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "user-data was changed" in done.stderr


def test_a_lock_asks_for_all_that_a_report_shows(sevlaunch: Command, base: Path) -> None:
    said = (*BOUND, "--set", "security.id_block=anonymous")
    lock = base / "lock"
    lock.write_text(
        sevlaunch("render", PROFILES / "sev-snp.yaml", "--rehearse", "--lock", *launch("11.1"), *said).stdout
    )
    rehearsed(sevlaunch, "sev-snp", "11.1", None, *said)
    evidence = base / "evidence.json"
    evidence.write_text(json.dumps(finished(sevlaunch)))
    ask = ("owner", "report", evidence, "--any-report-data", "--rehearsal", "--lock", lock)
    checks = {one["name"]: one["ok"] for one in sevlaunch(*ask, "--format", "json").json["checks"]}
    wanted = {"measurement", "policy", "host data", "id key digest", "author key digest"}
    assert wanted <= set(checks) and all(checks.values())
    content = json.loads(lock.read_text())
    for changed in (
        {"host_data": None},
        {"id_block": None},
        {"policy": 0x130000},
        {"digests": {"launch": "00" * 48}},
    ):
        lock.write_text(json.dumps(content | changed))
        checks = {one["name"]: one["ok"] for one in sevlaunch(*ask, "--format", "json", check=1).json["checks"]}
        (failed,) = (name for name, ok in checks.items() if not ok)
        assert failed in wanted
    sevlaunch(*ask, "--policy", "0x30000", check=2)
    lock.write_text(json.dumps(content | {"type": "sev", "policy": 0x33}))
    assert "has no report" in sevlaunch(*ask, check=2).stderr


def test_two_launches_are_told_apart_by_the_name_of_what_changed(sevlaunch: Command, base: Path) -> None:
    def lock(file: str, *options: str) -> Path:
        profile = PROFILES / "sev-snp.yaml"
        content = sevlaunch("render", profile, "--rehearse", "--lock", *launch("11.1"), *options).stdout
        (base / file).write_text(content)
        return base / file

    first = lock("one", *BOUND, "--set", "security.id_block=anonymous")
    for name, options, fields in (
        ("seed", ("--set", "first_boot.run=[touch /other]"), {"seed/user-data", "seed/meta-data"}),
        ("data", ("--set", "initdata.data={aa.toml: two}"), {"aa.toml"}),
    ):
        other = lock(name, *BOUND, "--set", "security.id_block=anonymous", *options)
        found = sevlaunch("owner", "compare", first, other, "--format", "json", check=1).json["differences"]
        texts = {f"initdata.data.{field}" for field in fields}
        assert {one["field"] for one in found} == {"host_data", "initdata.digest", *texts}
    other = lock("block", *BOUND)
    found = sevlaunch("owner", "compare", first, other, "--format", "json", check=1).json["differences"]
    assert {one["field"].partition(".")[0] for one in found} == {"id_block"}
    more = lock("vcpus", *BOUND, "--set", "security.id_block=anonymous", "--set", "cpu.count=2")
    found = sevlaunch("owner", "compare", first, more, "--format", "json", check=1).json["differences"]
    assert {one["field"] for one in found} == {"vcpus", "id_block.id_key_digest", "digests.launch"}
