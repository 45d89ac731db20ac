"""ID blocks that a profile has made: the emulated processor runs that launch, and no other; other tools agree."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import pytest
from sevsnpmeasure.id_block import snp_calc_id_block

from sevlaunch.sevapi.id_block import IdBlock, key_digest
from tests import needs
from tests.conftest import PROFILES, Command, qemu_binary_of
from tests.owner.test_id_block import key_file
from tests.rehearsal.owner import rehearsed, share_platform
from tests.rehearsal.test_snp import POLICY, SNP_VERSIONS, expected_digest, finished, report_of

ANONYMOUS = ("--set", "security.id_block=anonymous")


@pytest.fixture(autouse=True)
def _kvm() -> None:
    needs.rehearsal()


def launch(version: str) -> tuple[str, ...]:
    """What :func:`rehearsed` starts: one vCPU, and an image that all versions take."""
    values = (f"qemu.binary={qemu_binary_of(version)}", f"firmware.image={needs.amdsev_image()}", "cpus=1")
    return tuple(word for value in values for word in ("--set", value))


def rendered(command: Command, version: str, *options: str) -> dict[str, bytes]:
    """The ID block and its authentication on the command line of a profile."""
    profile = PROFILES / "sev-snp.yaml"
    argv = command("render", profile, "--rehearse", "--format", "json", *launch(version), *options).json
    (snp,) = (argument for argument in argv if argument.startswith("sev-snp-guest"))
    return {name: base64.b64decode(text) for name, text in re.findall(r"(id-block|id-auth)=([A-Za-z0-9+/=]+)", snp)}


def as_files(base: Path, content: dict[str, bytes]) -> tuple[str, ...]:
    """What makes a profile take them from files."""
    overrides = []
    for name, key in (("id-block", "id_block"), ("id-auth", "id_auth")):
        (base / name).write_bytes(content[name])
        overrides += ["--set", f"security.{key}={base / name}"]
    return tuple(overrides)


@pytest.mark.parametrize("version", SNP_VERSIONS)
def test_an_anonymous_block_lets_its_launch_run_and_no_other(version: str, sevlaunch: Command, base: Path) -> None:
    shown = rendered(sevlaunch, version, *ANONYMOUS)
    assert IdBlock.from_bytes(shown["id-block"]) == IdBlock.anonymous(expected_digest(1), POLICY)
    rehearsed(sevlaunch, "sev-snp", version, None, *ANONYMOUS)
    report = report_of(finished(sevlaunch))
    assert report.measurement == expected_digest(1)
    told = sevlaunch("owner", "digest", PROFILES / "sev-snp.yaml", *ANONYMOUS, "--firmware", needs.amdsev_image(),
                     "--set", "cpus=1", "--format", "json").json  # fmt: skip
    assert report.id_key_digest.hex() == told["id_key_digest"]
    assert not report.author_key_enabled
    sevlaunch("down", "sev-snp", "--now")
    # The block of one vCPU, and a launch of two.
    rehearsed(sevlaunch, "sev-snp", version, None, *as_files(base, shown), vcpus=2)
    assert "BAD_MEASUREMENT (11)" in sevlaunch("resume", "sev-snp", check=5).stderr
    sevlaunch("down", "sev-snp")


@pytest.mark.parametrize("version", SNP_VERSIONS)
def test_keys_sign_what_sev_snp_measure_has_signed(version: str, sevlaunch: Command, base: Path) -> None:
    keys = [key_file(base, "id.pem"), key_file(base, "author.pem")]
    override = ("--set", f"security.id_block={{key: {keys[0]}, author: {keys[1]}}}")
    theirs = snp_calc_id_block(expected_digest(1), *map(str, keys))
    fields = dict(re.findall(r"(id-block|id_key_hash|author_key)[=:]\s*([A-Za-z0-9+/=]+)", theirs))
    block, id_key, author_key = (base64.b64decode(fields[name]) for name in ("id-block", "id_key_hash", "author_key"))
    assert rendered(sevlaunch, version, *override)["id-block"] == block
    evidence = rehearsed(sevlaunch, "sev-snp", version, None, *override)
    report = report_of(finished(sevlaunch))
    assert (report.id_key_digest, report.author_key_digest) == (id_key, author_key)
    assert report.author_key_enabled
    # The paths are the profile's; what is in the files is nowhere.
    secret = keys[0].read_text().splitlines()[1]
    assert secret not in str(evidence)
    folder = sevlaunch.runtime / "sev-snp"
    assert not [file for file in folder.rglob("*") if file.is_file() and secret.encode() in file.read_bytes()]


def up_verified(command: Command, *options: str, check: int = 0) -> Any:
    """`up --verify` of a rehearsed SNP guest, without a session."""
    share_platform(command)
    profile = PROFILES / "sev-snp.yaml"
    return command("up", profile, "--rehearse", "--verify", *launch("11.1"), *options, check=check)


def test_a_launch_is_verified_by_its_id_block_without_a_session(sevlaunch: Command, base: Path) -> None:
    result = up_verified(sevlaunch, *ANONYMOUS)
    assert "is the launch that its ID block names" in result.stderr
    assert "its owner still has to see the guest's report" in result.stderr
    # Its new start is compared as well, with nobody's help.
    sevlaunch("restart", "sev-snp", "--now")
    report = report_of(sevlaunch("evidence", "sev-snp").json)
    assert report.id_key_digest == key_digest(rendered(sevlaunch, "11.1", *ANONYMOUS)["id-auth"][0x240:0x644])
    sevlaunch("down", "sev-snp", "--now")


def test_what_can_not_be_verified_so_is_told_before_the_start(sevlaunch: Command, base: Path) -> None:
    for options, message in (
        ((), "has no ID block: nobody compares its launch"),
        ((*ANONYMOUS, "--secret", "luks:x"), "go with SEV and SEV-ES launches"),
    ):
        assert message in up_verified(sevlaunch, *options, check=2).stderr
    for override, message in (
        ("cpu.count=2", "the ID block is of the launch"),
        ("security.policy=0x130000", "the ID block is for the policy 0x130000, and the plan's is 0x30000"),
    ):
        other = as_files(base, rendered(sevlaunch, "11.1", *ANONYMOUS, "--set", override))
        assert message in up_verified(sevlaunch, *other, check=2).stderr
    assert sevlaunch.left_behind() == []


def test_a_key_that_is_missing_or_open_to_others_stops_the_start(sevlaunch: Command, base: Path) -> None:
    key = base / "id.pem"
    override = ("--set", f"security.id_block={{key: {key}}}")
    assert f"ID key {key}" in up_verified(sevlaunch, *override, check=4).stderr
    key_file(base, "id.pem").chmod(0o644)
    result = up_verified(sevlaunch, *override, check=2)
    assert f"others may read {key}" in result.stderr and "chmod 600" in result.stderr
