"""Launches of real QEMUs that are not what their owner's profile says get their one right explanation."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from sevlaunch.sevapi.id_block import IdBlock
from sevlaunch.sevapi.report import Report
from tests import needs
from tests.conftest import PROFILES, Command
from tests.rehearsal.owner import rehearsed
from tests.rehearsal.test_snp import identity

POLICY = 0x30000
# What a search of all single changes takes at most; a pair takes more.
ONE = 1000


@pytest.fixture(autouse=True)
def _kvm() -> None:
    needs.rehearsal()


@pytest.fixture
def files(base: Path) -> Path:
    """What the launches have beside firmware and kernel."""
    (base / "initrd").write_bytes(b"initrd" * 1000)
    (base / "older").write_bytes(b"older initrd" * 1000)
    # A build of another day: its first byte is one that nobody executes.
    (base / "other.fd").write_bytes(b"x" + needs.amdsev_image().read_bytes()[1:])
    return base


def boot(
    base: Path,
    *,
    initrd: str = "initrd",
    cmdline: str = "console=ttyS0 quiet",
    credentials: tuple[str, ...] = ("motd",),
) -> str:
    """The override for a direct boot."""
    document: dict[str, Any] = {"kernel": str(needs.demo_guest() / "vmlinuz"), "cmdline": cmdline}
    if initrd:
        document["initrd"] = str(base / initrd)
        document["credentials"] = {name: {"text": "hello"} for name in credentials}
    return f"boot={json.dumps(document)}"


# What the host launches, on top of the profile, and the explanation for the owner.
WRONG: dict[str, tuple[tuple[str, ...], str]] = {
    "vcpus": (("cpus=4",), "vcpus were 4 (profile says 2)"),
    "cpu model": (("cpu.model=EPYC-Milan-v2",), "the CPU signature were 0xa00f11 (EPYC-Milan) (default says"),
    "stepping": (("cpu.features=[stepping=1]",), "the CPU signature were 0x800f11 (EPYC, stepping 1) (default says"),
    "hashes off": (("security.kernel_hashes=false",), "kernel hashes were off (profile says on)"),
    "blank": (("BOOT cmdline",), "the command line were 'console=ttyS0 quiet ' (profile says"),
    "no initrd": (("BOOT none",), "the initrd were left out (profile says there is one)"),
    "older initrd": (("BOOT older",), "the initrd were BASE/older with the credentials (profile says BASE/initrd)"),
    "credentials left out": (("BOOT bare",), "the initrd were without its credentials (profile says BASE/initrd)"),
    "firmware build": (("FIRMWARE",), "the firmware were OTHER (--firmware says"),
    "two": (
        ("cpus=3", "security.kernel_hashes=false"),
        "vcpus were 3 (profile says 2) and kernel hashes were off (profile says on)",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_launch_gets_its_one_right_explanation(name: str, sevlaunch: Command, files: Path) -> None:
    changes, text = WRONG[name]
    other = files / "other.fd"
    variants = {
        "BOOT cmdline": boot(files, cmdline="console=ttyS0 quiet "),
        "BOOT none": boot(files, initrd=""),
        "BOOT older": boot(files, initrd="older"),
        "BOOT bare": boot(files, credentials=()),
        "FIRMWARE": f"firmware.image={other}",
    }
    right = ["security.kernel_hashes=true", boot(files)]
    wrong = [*right, *(variants.get(one, one) for one in changes)]
    rehearsed(sevlaunch, "sev-snp", "10.0", None, *(word for one in wrong for word in ("--set", one)), vcpus=2)
    sevlaunch("resume", "sev-snp")
    report = files / "report"
    report.write_bytes(base64.b64decode(sevlaunch("evidence", "sev-snp").json["report"]))
    sevlaunch("down", "sev-snp", "--now")
    given: list[str | Path] = ["--profile", PROFILES / "sev-snp.yaml", "--firmware", needs.amdsev_image()]
    given += [word for one in right for word in ("--set", one)]
    given += ["--try", files / "older", "--try", other]
    # Without a certificate the answer is no in any case.
    (files / "certs").mkdir()
    given += ["--any-report-data", "--certs", files / "certs", "--format", "json"]
    document = sevlaunch("owner", "report", report, *given, check=1).json
    found = document["search"]
    expected = text.replace("BASE", str(files)).replace("OTHER", str(other))
    assert found["text"].startswith(f"would match if {expected}"), found["text"]
    assert found["complete"]
    if name != "two":
        assert (len(found["changes"]), found["tried"] < ONE) == (1, True)


def test_a_refused_id_block_is_explained(sevlaunch: Command, base: Path) -> None:
    rehearsed(sevlaunch, "sev-snp", "10.0", None, vcpus=4)
    sevlaunch("resume", "sev-snp")
    report = Report.from_bytes(base64.b64decode(sevlaunch("evidence", "sev-snp").json["report"]))
    sevlaunch("down", "sev-snp", "--now")
    options, _, _ = identity(base, IdBlock(report.measurement, POLICY))
    rehearsed(sevlaunch, "sev-snp", "10.0", None, *options, vcpus=2)
    refused = sevlaunch("resume", "sev-snp", check=5).stderr
    assert "owner digest PROFILE --against ID_BLOCK" in refused
    sevlaunch("down", "sev-snp")
    profile, firmware = PROFILES / "sev-snp.yaml", needs.amdsev_image()
    told = sevlaunch("owner", "digest", profile, "--firmware", firmware, "--against", base / "id-block", check=1).stdout
    assert "the digest is another: would match if vcpus were 4 (profile says 2)" in told


@pytest.mark.parametrize("version", ["10.0", "11.1"])
def test_a_rehearsed_launch_is_attested(version: str, sevlaunch: Command, base: Path) -> None:
    data = bytes(range(32))
    override = f"security.host_data={base64.b64encode(data).decode()}"
    rehearsed(sevlaunch, "sev-snp", version, None, "--set", override, vcpus=4)
    assert "before its launch is finished" in sevlaunch("attest", "sev-snp", "--rehearsal", check=8).stderr
    sevlaunch("resume", "sev-snp")
    # An emulated processor's answer proves nothing, and is taken only by name.
    assert "rehearsal" in sevlaunch("attest", "sev-snp", check=9).stderr
    first, second = (sevlaunch("attest", "sev-snp", "--rehearsal", "--format", "json").json for _ in range(2))
    assert (first["ok"], first["by"], first["rehearsal"]) == (True, "rehearsal", True)
    assert first["nonce"] == first["report"]["report_data"] != second["nonce"]
    # Digest, policy and host data are those of the guest's own profile.
    assert {"measurement", "policy", "host data", "report data"} <= {one["name"] for one in first["checks"]}
    then = ["--then", "sh", "--", "-c", "echo ran; wc -c < $SEVLAUNCH_REPORT"]
    assert "yes: every check holds\nran\n" in sevlaunch("attest", "sev-snp", "--rehearsal", *then).stdout
    # The same report is read by the owner's command, with a nonce of the owner's own.
    (base / "nonce").write_bytes(b"n" * 64)
    sevlaunch("attest", "sev-snp", "--rehearsal", "--nonce", base / "nonce", "--report", base / "kept")
    owner: list[str | Path] = ["owner", "report", base / "kept", "--rehearsal", "--any-digest", "--any-policy"]
    sevlaunch(*owner, "--nonce", base / "nonce")
    assert "report data" in sevlaunch(*owner, "--report-data", "00" * 64, check=1).stdout
    wrong: dict[str, list[str | Path]] = {
        "host data": ["--host-data", "00" * 32],
        "would match if vcpus were 4": ["--profile", PROFILES / "sev-snp.yaml", "--firmware", needs.amdsev_image()],
        "measurement": ["--digest", "00" * 48, "--any-policy"],
        "policy": ["--policy", "0xb0000"],
    }
    for reason, options in wrong.items():
        result = sevlaunch("attest", "sev-snp", "--rehearsal", *options, *then, check=1).stdout
        assert reason in result, reason
        assert "ran" not in result
    sevlaunch("down", "sev-snp", "--now")
    sevlaunch("attest", "sev-snp", "--rehearsal", check=10)
    assert sevlaunch.left_behind() == []
