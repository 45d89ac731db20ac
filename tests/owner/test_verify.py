"""`owner verify`: yes, no, and the other exits; what is compared, and where a generation of VMSA pages comes from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from sevlaunch.errors import EvidenceError
from sevlaunch.guest_type import GuestType
from sevlaunch.owner.claims import HostClaims, parse_claims
from sevlaunch.owner.digest import Launch, launch_digest
from sevlaunch.owner.firmware import Firmware
from sevlaunch.owner.setup import VMSA_NAMES
from sevlaunch.sevapi.kernel_hashes import KernelHashes, cmdline_hash
from sevlaunch.sevapi.measurement import measure
from tests.conftest import Command
from tests.owner.images import PublishedFirmware, ovmf
from tests.owner.launches import POLICIES, Host, write_keys

IMAGE = ovmf()
SEV = Host(Launch(GuestType.SEV, Firmware.of_image(IMAGE)), 0x33)
ES = Host(Launch(GuestType.SEV_ES, Firmware.of_image(IMAGE), None, 2, 0x800F12, False), 0x37)


@pytest.fixture
def owner(sevlaunch: Command, base: Path) -> Callable[..., list[str | Path]]:
    """Arguments of `owner verify` for a host's evidence."""
    (base / "ovmf.fd").write_bytes(IMAGE)
    for kind, policy in POLICIES.items():
        (base / f"{kind}.yaml").write_text(
            f"cpus: 2\nfirmware: {{image: ovmf.fd}}\nsecurity: {{type: {kind}, policy: {policy:#x}}}\n"
        )
    tik, _ = write_keys(base)

    def arguments(host: Host, kind: str = "", **changes: Any) -> list[str | Path]:
        file = base / "evidence.json"
        file.write_text(json.dumps({**host.evidence(), **changes}))
        profile = base / f"{kind or host.launch.guest_type}.yaml"
        return ["owner", "verify", file, "--tik", tik, "--profile", profile]

    return arguments


Arguments = Callable[..., list[str | Path]]


@pytest.mark.parametrize("host", [SEV, ES, replace(ES.with_launch(init2=True), qemu="10.0.2")], ids=["sev", "es", "i2"])
def test_the_right_launch_is_verified_and_all_that_was_compared_is_shown(
    host: Host, owner: Arguments, sevlaunch: Command
) -> None:
    arguments = owner(host)
    text = sevlaunch(*arguments, "--min-api", "1.51").stdout
    assert text.endswith("guest: verified\n")
    found = sevlaunch(*arguments, "--format", "json").json
    assert (found["verified"], found["search"], found["rehearsal"]) == (True, None, False)
    checks = {check["name"]: check for check in found["checks"]}
    expected = ["type", "firmware", "api version", "build", "policy", "vcpus", "digest", "measurement"]
    assert list(checks) == [name for name in expected if name != "vcpus" or host.launch.guest_type.encrypts_registers]
    assert all(check["ok"] is not False for check in checks.values())
    assert checks["firmware"]["expected"] == hashlib.sha256(IMAGE).hexdigest()
    assert checks["measurement"]["expected"] == checks["measurement"]["found"]
    assert checks["build"]["found"] == "3"
    assert (checks["api version"]["expected"], checks["api version"]["found"]) == ("0.0 or newer", "1.51")
    assert found["vmsa"] == (VMSA_NAMES[host.launch.init2] if host.launch.guest_type.has_vmsa_generations else None)


@pytest.mark.parametrize(
    ("host", "arguments", "failed"),
    [
        (SEV, ["--min-api", "1.52"], ["api version"]),
        (SEV, ["--min-api", "2.0"], ["api version"]),
        (replace(SEV, said={"type": "sev-es"}), [], ["type"]),
        (replace(SEV, said={"policy": 0x32}), [], ["policy"]),
        (replace(SEV, said={"policy": None}), [], ["policy"]),
        (replace(SEV, policy=0x32), [], ["policy", "digest", "measurement"]),
        (replace(SEV, said={"build_id": 4}), [], ["digest", "measurement"]),
        (SEV.with_launch(firmware=Firmware.of_image(ovmf(fill=1))), [], ["firmware", "digest", "measurement"]),
        (replace(SEV, said={"enabled": False, "type": "none"}), [], ["type", "digest", "measurement"]),
        (ES.with_launch(vcpus=3), [], ["vcpus", "digest", "measurement"]),
        (ES, ["--set", "cpus=1"], ["vcpus", "digest", "measurement"]),
        (ES, ["--vmsa", "init2"], ["digest", "measurement"]),
    ],
)
def test_each_difference_is_a_no_with_its_reason(
    host: Host, arguments: list[str], failed: list[str], owner: Arguments, sevlaunch: Command
) -> None:
    found = sevlaunch(*owner(host), *arguments, "--format", "json", check=1).json
    assert found["verified"] is False
    assert [check["name"] for check in found["checks"] if check["ok"] is False] == failed
    assert (found["search"] is None) == ("measurement" not in failed or not host.evidence()["sev"]["enabled"])


def test_what_the_evidence_does_not_tell_is_no_difference_but_for_the_api_version(
    owner: Arguments, sevlaunch: Command
) -> None:
    found = sevlaunch(*owner(ES, firmware=None, vcpus=None), "--format", "json").json
    checks = {check["name"]: (check["ok"], check["found"]) for check in found["checks"]}
    assert found["verified"] is True
    assert checks["firmware"] == checks["vcpus"] == (None, "not told")
    # Its measurement could not be right, and a minimum would not be kept.
    without = {**ES.evidence()["sev"], "api_minor": None}
    found = sevlaunch(*owner(ES, sev=without), "--format", "json", check=1).json
    assert next(check["ok"] for check in found["checks"] if check["name"] == "api version") is False


def test_a_no_is_explained(owner: Arguments, sevlaunch: Command) -> None:
    result = sevlaunch(*owner(ES.with_launch(vcpus=4)), check=1)
    assert "would match if vcpus were 4 (profile says 2)" in result.stdout
    assert result.stdout.endswith("guest: NOT verified\n")
    search = sevlaunch(*owner(ES.with_launch(vcpus=4)), "--format", "json", check=1).json["search"]
    assert search["changes"] == [{"subject": "vcpus", "value": "4", "said": "2", "source": "profile"}]
    assert (search["text"], search["complete"]) == ("would match if vcpus were 4 (profile says 2)", True)
    assert "vcpus" in search["subjects"]


def test_the_other_exits(owner: Arguments, sevlaunch: Command, base: Path) -> None:
    rehearsal = owner(SEV, rehearsal=True)
    assert "--rehearsal" in sevlaunch(*rehearsal, check=9).stderr
    assert sevlaunch(*rehearsal, "--rehearsal").stdout.startswith("REHEARSAL: memory is NOT encrypted")
    snp = {**SEV.evidence()["sev"], "type": "sev-snp"}
    assert "owner report" in sevlaunch(*owner(SEV, sev=snp, measurement=None), check=8).stderr
    as_snp = [*owner(SEV), "--set", "security={type: sev-snp}"]
    assert "owner report" in sevlaunch(*as_snp, check=8).stderr
    assert "--paused" in sevlaunch(*owner(SEV, measurement=None), check=8).stderr
    without = owner(replace(SEV, tik=bytes(16)), command=["qemu-system-x86_64"])
    assert "without an owner's session" in sevlaunch(*without, check=8).stderr
    refused = [*owner(SEV), "--set", "security.polcy=1"]
    assert "did you mean" in sevlaunch(*refused, check=3).stderr
    assert "wanted a version" in sevlaunch(*owner(SEV), "--min-api", "new", check=2).stderr
    (base / "tik.bin").write_bytes(b"short")
    assert "tik.bin: wanted 16 bytes" in sevlaunch(*owner(SEV), check=2).stderr


def test_verifying_where_the_guest_runs_is_refused(owner: Arguments, sevlaunch: Command) -> None:
    arguments = owner(SEV)
    folder = sevlaunch.runtime / "the-guest"
    folder.mkdir(parents=True)
    (folder / "evidence.json").write_text(json.dumps(SEV.evidence()))
    refused = sevlaunch(*arguments, check=9)
    assert "the-guest runs on this machine" in refused.stderr
    assert refused.stdout == ""
    # It is no rehearsal, though one would be taken.
    sevlaunch(*arguments, "--rehearsal", check=9)
    sevlaunch(*arguments, "--insecure")
    other = Host(SEV.launch, 0x33, build_id=9).evidence()
    (folder / "evidence.json").write_text(json.dumps(other))
    sevlaunch(*arguments)


@pytest.mark.parametrize(
    "change",
    [
        {"measurement": "AAAA"},
        {"measurement": "!" * 64},
        {"measurement": "A" * 100_000},
        {"name": 7},
        {"command": "qemu"},
        {"vcpus": -1},
        {"rehearsal": "no"},
        {"sev": {}},
        {"sev": None},
        {"sev": {**SEV.evidence()["sev"], "api_major": 256}},
        {"sev": {**SEV.evidence()["sev"], "policy": -1}},
        {"sev": {**SEV.evidence()["sev"], "policy": 1 << 64}},
        {"sev": {**SEV.evidence()["sev"], "type": "tdx"}},
        {"firmware": {"path": "x", "sha256": "zz"}},
        {"qemu": {"binary": "x", "version": "ten"}},
        {"command": ["x"] * 5000},
    ],
)
def test_evidence_of_a_strange_shape_is_none(change: dict[str, Any], owner: Arguments, sevlaunch: Command) -> None:
    with pytest.raises(EvidenceError, match="is no evidence of a launch"):
        parse_claims(json.dumps({**SEV.evidence(), **change}).encode(), "evidence.json")


def test_strange_evidence_ends_the_command_with_its_own_code(owner: Arguments, sevlaunch: Command) -> None:
    assert "measurement" in sevlaunch(*owner(SEV, measurement="AAAA"), check=7).stderr


@pytest.mark.parametrize(
    ("qemu", "arguments", "init2"),
    [
        ("7.2.22", (), False),
        ("9.0.0", ("-machine", "pc-q35-9.0"), False),
        ("9.1.0", (), None),
        ("10.0.2", ("-machine", "q35,vmport=off"), None),
        ("10.0.2", ("-machine", "pc-q35-9.0,vmport=off"), None),
        ("10.0.2", ("-object", "sev-guest,id=sev0,legacy-vm-type=on"), False),
        ("10.0.2", ("-object", "sev-guest,id=sev0,legacy-vm-type=off"), True),
        ("10.0.2", ("-object", "sev-guest,id=sev0,legacy-vm-type=auto"), None),
    ],
)
def test_evidence_decides_the_generation_where_it_can(
    qemu: str, arguments: tuple[str, ...], init2: bool | None
) -> None:
    assert msgspec.convert(replace(ES, qemu=qemu, extra=arguments).evidence(), HostClaims).init2 is init2


# sevctl's tests/measurementbuild.rs, in numbers: its firmware is known by the state of SHA-256 after it.
SEVCTL_FIRMWARE = PublishedFirmware(
    sha256=bytes.fromhex("2f6fc6065f4abc131eb4fb2b5090a542636eae84a94c0db0fdd5f405cb372ff5"),
    state=bytes.fromhex("6651eb072dd25ae14075d40e825a7b6448138546df7ef9a0f0c21c8e50f5baec"),
)
SEVCTL_KERNEL = KernelHashes(
    hashlib.sha256(b"fake vmlinuz\n").digest(),
    hashlib.sha256(b"fake initrd\n").digest(),
    cmdline_hash(b"foo bar baz fake kernel=cmdline"),
)


@pytest.mark.parametrize(
    ("launch", "policy", "api", "build_id", "blob"),
    [
        (
            Launch(GuestType.SEV, SEVCTL_FIRMWARE),
            3,
            (1, 40),
            40,
            "oMDewIouJSpbpNRHj7Mk3p08H2dPZQdsZMU14qIymBnDE/q1EcIWsVBbGy6pkDxA",
        ),
        (
            Launch(GuestType.SEV, SEVCTL_FIRMWARE, SEVCTL_KERNEL),
            3,
            (1, 40),
            40,
            "h3auYbWQnVW7EGLWN4Hf9SN0oEYMPU2sK4bLnefWPwvDE/q1EcIWsVBbGy6pkDxA",
        ),
        (
            Launch(GuestType.SEV_ES, SEVCTL_FIRMWARE, None, 4, 0xA00F11, False),
            5,
            (1, 49),
            6,
            "/o0nzDKE5XgtVnUZWPhUea/WZYrTKLExR7KCwuMdbActvpWfXTFk21KMZIAAhQny",
        ),
    ],
    ids=["firmware", "kernel", "vmsa"],
)
def test_sevctls_published_measurements_come_out_the_same(
    launch: Launch, policy: int, api: tuple[int, int], build_id: int, blob: str
) -> None:
    shown = msgspec.convert({**SEV.evidence(), "measurement": blob}, HostClaims)
    found = measure(
        bytes.fromhex("3569cf61a32a602b87185ac6e0f55913"),
        api_major=api[0],
        api_minor=api[1],
        build_id=build_id,
        policy=policy,
        digest=launch_digest(launch),
        mnonce=shown.mnonce,
    )
    assert found == shown.measure
