"""What verifiers are given: values and policies that affirm the launches that are allowed, and no others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sevlaunch.owner.trustee import policy_input
from sevlaunch.sevapi.report import Tcb
from tests.conftest import HOSTS, Command
from tests.owner.allowed import digest, snp_profile
from tests.owner.pki import processor
from tests.owner.reports import real_report
from tests.owner.verifiers import AFFIRMING, DEFAULT_POLICY, registered, stored, trust_claims
from tests.published import reports

MILAN = HOSTS / "milan-qemu-10.0.json"
TCB = "boot_loader=3,tee=0,snp=8,microcode=115"
PLATFORM = ("--tcb", TCB, "--platform", "smt,no-tsme")
MADE = processor("Milan", version=3)


@pytest.fixture
def profile(base: Path) -> Path:
    """An SNP profile with two vCPUs."""
    return snp_profile(base)


def claims(vcpus: int = 2, tcb: Tcb = Tcb(3, 0, 8, 115), **changes: Any) -> dict[str, Any]:  # noqa: B008
    """The claims of a report of the profile's launch."""
    said = {
        "measurement": digest(vcpus),
        "host_data": b"\xab" * 32,
        "policy": 0x30000 | 51 | 1 << 8,
        "platform_info": 0x25,
        "reported_tcb": tcb.to_bytes(),
    }
    report = MADE.report.from_bytes(MADE.signed(**{**said, **changes}))
    return policy_input(report, tcb)


def printed(sevlaunch: Command, profile: Path, *words: str | Path) -> Any:
    """What the command prints, in JSON."""
    return sevlaunch("owner", "reference-values", profile, *words).json


OTHERWISE: dict[str, tuple[str, dict[str, Any]]] = {
    "vcpus": ("executables", {"vcpus": 3}),
    "boot loader": ("hardware", {"tcb": Tcb(4, 0, 8, 115)}),
    "tee": ("hardware", {"tcb": Tcb(3, 1, 8, 115)}),
    "snp": ("hardware", {"tcb": Tcb(3, 0, 7, 115)}),
    "microcode": ("hardware", {"tcb": Tcb(3, 0, 8, 114)}),
    "smt on": ("configuration", {"platform_info": 0x24}),
    "tsme on": ("configuration", {"platform_info": 0x27}),
    "debug": ("configuration", {"policy": 0xB0000 | 51 | 1 << 8}),
    "migration agent": ("configuration", {"policy": 0x70000 | 51 | 1 << 8}),
    "smt allowed": ("configuration", {"policy": 0x20000 | 51 | 1 << 8}),
    "single socket": ("configuration", {"policy": 0x130000 | 51 | 1 << 8}),
    "minor ABI": ("configuration", {"policy": 0x30000 | 52 | 1 << 8}),
    "major ABI": ("configuration", {"policy": 0x30000 | 51 | 2 << 8}),
}


def test_trustees_default_policy_affirms_the_launch_and_no_other(profile: Path, sevlaunch: Command) -> None:
    values = stored(printed(sevlaunch, profile, *PLATFORM))
    assert values["snp_launch_measurement"] == [digest(2).hex()]
    assert trust_claims(DEFAULT_POLICY, claims(), values) == AFFIRMING
    for name, (claim, changes) in OTHERWISE.items():
        found = trust_claims(DEFAULT_POLICY, claims(**changes), values)
        assert found != AFFIRMING, name
        assert found[claim] != AFFIRMING[claim], name
    for name, value in values.items():
        other: Any = not value if isinstance(value, bool) else value + 1 if isinstance(value, int) else []
        assert trust_claims(DEFAULT_POLICY, claims(), {**values, name: other}) != AFFIRMING, name


def test_a_policy_of_its_own_affirms_the_launch_and_no_other(profile: Path, sevlaunch: Command) -> None:
    policy = sevlaunch("owner", "reference-values", profile, *PLATFORM, "--format", "rego").stdout
    assert trust_claims(policy, claims()) == AFFIRMING
    for name, (claim, changes) in OTHERWISE.items():
        found = trust_claims(policy, claims(**changes))
        assert {one for one in found if found[one] != AFFIRMING[one]} == {claim}, name
    assert trust_claims(policy, claims(host_data=bytes(32)))["executables"] == 33
    assert trust_claims(policy, {}) == {"executables": 33, "hardware": 97, "configuration": 36}
    pinned = sevlaunch(
        *("owner", "reference-values", profile, *PLATFORM, "--format", "rego"),
        *("--chip-id", bytes(range(1, 65)).hex(), "--chip-id", "0b" * 8),
    ).stdout
    assert trust_claims(pinned, claims()) == AFFIRMING
    assert trust_claims(pinned, claims(chip_id=b"\x0b" * 8 + bytes(56))) == AFFIRMING
    assert trust_claims(pinned, claims(chip_id=b"\x0b" * 64))["hardware"] == 97


def test_host_data_go_with_their_own_launch(profile: Path, sevlaunch: Command, base: Path) -> None:
    locks: list[str | Path] = []
    for vcpus, data in ((1, "ab"), (2, "cd")):
        overrides = ("--set", f"cpu.count={vcpus}", "--set", f"security.host_data={data * 32}")
        text = sevlaunch("render", profile, "--host", MILAN, "--lock", *overrides).stdout
        (base / f"{data}.lock").write_text(text)
        locks += ["--lock", base / f"{data}.lock"]
    policy = sevlaunch("owner", "reference-values", *locks, *PLATFORM, "--format", "rego").stdout
    for vcpus, octet, executables in ((1, 0xAB, 3), (2, 0xCD, 3), (1, 0xCD, 33), (2, 0xAB, 33)):
        assert trust_claims(policy, claims(vcpus, host_data=bytes([octet]) * 32))["executables"] == executables


def test_each_number_of_vcpus_that_is_allowed(profile: Path, sevlaunch: Command, base: Path) -> None:
    values = stored(printed(sevlaunch, profile, *PLATFORM, "--vcpus", "1-8"))
    assert values["snp_launch_measurement"] == [digest(count).hex() for count in range(1, 9)]
    (base / "snp.lock").write_text(sevlaunch("render", profile, "--host", MILAN, "--lock").stdout)
    locked = ("owner", "reference-values", "--lock", base / "snp.lock", *PLATFORM)
    assert stored(sevlaunch(*locked).json)["snp_launch_measurement"] == [digest(2).hex()]
    found = stored(sevlaunch(*locked, "--vcpus", "1,4").json)
    assert found["snp_launch_measurement"] == [digest(1).hex(), digest(4).hex()]
    # Other numbers take the firmware, one's own does not.
    (base / "ovmf.fd").rename(base / "moved.fd")
    assert stored(sevlaunch(*locked, "--vcpus", "2").json)["snp_launch_measurement"] == [digest(2).hex()]
    assert "--firmware" in sevlaunch(*locked, "--vcpus", "1,4", check=2).stderr
    again = sevlaunch(*locked, "--vcpus", "1,4", "--firmware", base / "moved.fd").json
    assert stored(again) == found


def test_a_message_registers_the_same_values(profile: Path, sevlaunch: Command) -> None:
    values = stored(printed(sevlaunch, profile, *PLATFORM))
    assert registered(printed(sevlaunch, profile, *PLATFORM, "--format", "rvps")) == values
    name = "rvps:///github.com/OWNER/image:v1"
    named = registered(printed(sevlaunch, profile, *PLATFORM, "--format", "rvps", "--name", name))
    assert named == {f"rvps:///github.com/OWNER/image/{key}:v1": value for key, value in values.items()}
    plain = stored(printed(sevlaunch, profile, *PLATFORM, "--name", "rvps:///a/b"))
    assert plain == {f"rvps:///a/b/{key}": value for key, value in values.items()}


def test_values_hold_as_long_as_is_said(profile: Path, sevlaunch: Command) -> None:
    entries = printed(sevlaunch, profile, *PLATFORM, "--expires", "2027-06-01")
    assert {entry["expiration"] for entry in entries} == {"2027-06-01T00:00:00Z"}


def test_a_platform_is_what_a_report_of_it_says(profile: Path, sevlaunch: Command, base: Path) -> None:
    said = MADE.signed(reported_tcb=Tcb(9, 1, 2, 3).to_bytes(), platform_info=0x2)
    (base / "report").write_bytes(said)
    values = stored(printed(sevlaunch, profile, "--report", base / "report"))
    assert (values["snp_bootloader"], values["snp_tee_svn"]) == ([9], [1])
    assert (values["snp_snp_svn"], values["snp_microcode"]) == ([2], [3])
    assert (values["snp_smt_enabled"], values["snp_tsme_enabled"]) == (False, True)
    more = stored(printed(sevlaunch, profile, "--report", base / "report", "--tcb", TCB, "--platform", "smt"))
    assert (more["snp_bootloader"], more["snp_smt_enabled"], more["snp_tsme_enabled"]) == ([3, 9], True, True)
    turin = processor("Turin", version=5)
    (base / "report").write_bytes(turin.signed())
    found = printed(sevlaunch, profile, "--report", base / "report", "--format", "json")["platform"]
    assert found["generation"] == "Turin"
    assert found["tcbs"] == [{"boot_loader": 3, "tee": 0, "snp": 8, "microcode": 115, "fmc": 1}]
    wrong = sevlaunch(
        "owner", "reference-values", profile, "--report", base / "report", "--generation", "Milan", check=2
    )
    assert "is of Turin" in wrong.stderr


# ---- Contrast


def test_contrasts_part_is_right_in_each_field(profile: Path, sevlaunch: Command) -> None:
    plain = ("--set", "security.policy=0x30000", "--generation", "Milan", "--format", "contrast")
    chip = bytes(range(64)).hex()
    found = printed(sevlaunch, profile, *PLATFORM, *plain, "--vcpus", "1-2", "--chip-id", chip)
    assert [entry["TrustedMeasurement"] for entry in found["snp"]] == [digest(1).hex(), digest(2).hex()]
    assert [entry["CPUs"] for entry in found["snp"]] == [1, 2]
    for entry in found["snp"]:
        assert set(entry) == {
            *(
                "ProductName",
                "TrustedMeasurement",
                "MinimumTCB",
                "GuestPolicy",
                "PlatformInfo",
                "AllowedChipIDs",
                "CPUs",
            )
        }
        assert entry["ProductName"] == "Milan"
        assert entry["MinimumTCB"] == {
            "BootloaderVersion": 3,
            "TEEVersion": 0,
            "SNPVersion": 8,
            "MicrocodeVersion": 115,
        }
        off = ("MigrateMA", "Debug", "SingleSocket", "CXLAllowed", "MemAES256XTS", "RAPLDis", "CipherTextHidingDRAM")
        numbers = {"ABIMinor": 0, "ABIMajor": 0, "SMT": True, "PageSwapDisable": False}
        assert entry["GuestPolicy"] == {**numbers, **dict.fromkeys(off, False)}
        platform_off = ("TSMEEnabled", "ECCEnabled", "RAPLDisabled", "CiphertextHidingDRAMEnabled", "TIOEnabled")
        assert entry["PlatformInfo"] == {
            "SMTEnabled": True,
            "AliasCheckComplete": False,
            **dict.fromkeys(platform_off, False),
        }
        assert entry["AllowedChipIDs"] == [chip]
    least = printed(sevlaunch, profile, *PLATFORM, *plain, "--tcb", "boot_loader=4,tee=0,snp=7,microcode=200,fmc=2")
    assert least["snp"][0]["MinimumTCB"] == {
        "BootloaderVersion": 3,
        "TEEVersion": 0,
        "SNPVersion": 7,
        "MicrocodeVersion": 115,
        "FMCVersion": 2,
    }


# ---- what is refused


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ((), "affirms no platform without the TCB"),
        (("--tcb", TCB), "smt (--platform smt or no-smt)"),
        (("--tcb", "snp=1", "--platform", "smt,no-tsme"), "lacks boot_loader, tee, microcode"),
        (("--tcb", "snp", "--platform", "smt,no-tsme"), "--tcb: wanted"),
        ((*PLATFORM, "--vcpus", "0-2"), "--vcpus: wanted numbers from 1"),
        ((*PLATFORM, "--vcpus", "x"), "--vcpus: wanted numbers and ranges"),
        ((*PLATFORM, "--vcpus", ""), "--vcpus: wanted numbers from 1"),
        ((*PLATFORM, "--name", "image:v1"), "wanted a name such as rvps:///"),
        ((*PLATFORM, "--generation", "Rome"), "--generation: wanted one of"),
        ((*PLATFORM, "--set", "security.policy=[smt, debug]"), "allows debugging"),
        (
            (*PLATFORM, "--set", "security.policy=[smt, migration-agent]", "--format", "rego"),
            "allows a migration agent",
        ),
        ((*PLATFORM, "--set", "security=sev"), "has no attestation report"),
        ((*PLATFORM, "--svn", "1"), "--svn has no place in the format trustee"),
        ((*PLATFORM, "--format", "rvps", "--expires", "2027-06-01"), "--expires has no place in the format rvps"),
        ((*PLATFORM, "--format", "rego", "--name", "rvps:///a"), "--name has no place in the format rego"),
        (("--format", "corim"), "--svn N"),
        (("--format", "corim", "--svn", "1", "--vcpus", "1-2"), "has one launch, and these are 2"),
        ((*PLATFORM, "--format", "contrast"), "wants the processor's generation"),
        ((*PLATFORM, "--format", "contrast", "--generation", "Milan"), "takes the policies 0x30000 and 0x3001f"),
        (("--lock", "missing"), "leave out the profile"),
    ],
)
def test_what_would_say_nothing_is_refused(
    words: tuple[str, ...], reason: str, profile: Path, sevlaunch: Command
) -> None:
    result = sevlaunch("owner", "reference-values", profile, *words, check=2)
    assert reason in result.stderr
    assert result.stdout == ""


def test_locks_of_several_policies_are_refused(profile: Path, sevlaunch: Command, base: Path) -> None:
    words: list[str | Path] = []
    for policy in ("0x30000", "0x20000"):
        text = sevlaunch("render", profile, "--host", MILAN, "--lock", "--set", f"security.policy={policy}").stdout
        (base / policy).write_text(text)
        words += ["--lock", base / policy]
    result = sevlaunch("owner", "reference-values", *words, *PLATFORM, check=2)
    assert "knows one policy, and the launches have 0x30000 (smt), 0x20000" in result.stderr
    block = ("--set", "security.id_block=anonymous")
    (base / "block.lock").write_text(sevlaunch("render", profile, "--host", MILAN, "--lock", *block).stdout)
    locked = ("owner", "reference-values", "--lock", base / "block.lock", *PLATFORM)
    assert sevlaunch(*locked, "--format", "json").json["launches"][0]["id_key_digest"]
    assert "has an ID block" in sevlaunch(*locked, "--vcpus", "1-2", check=2).stderr
    assert "wanted a profile, or lock files" in sevlaunch("owner", "reference-values", check=2).stderr


# ---- claims


def test_claims_are_those_that_trustee_makes(sevlaunch: Command, tmp_path: Path) -> None:
    report = real_report()
    (tmp_path / "report").write_bytes(report)
    result = sevlaunch("owner", "report", tmp_path / "report", "--claims")
    assert "nothing was checked" in result.stderr
    assert result.json == {
        "snp": {
            "policy_abi_major": 0,
            "policy_abi_minor": 0,
            "policy_smt_allowed": True,
            "policy_migrate_ma": False,
            "policy_debug_allowed": False,
            "policy_single_socket": False,
            "reported_tcb_bootloader": report[0x180],
            "reported_tcb_tee": report[0x181],
            "reported_tcb_snp": report[0x186],
            "reported_tcb_microcode": report[0x187],
            "platform_tsme_enabled": bool(report[0x40] & 2),
            "platform_smt_enabled": bool(report[0x40] & 1),
            "measurement": report[0x90:0xC0].hex(),
            "chip_id": report[0x1A0:0x1E0].hex(),
        },
        "init_data": report[0xC0:0xE0].hex(),
        "report_data": report[0x50:0x90].hex(),
    }
    for more in (["--any-digest"], ["--vmpl", "1"], ["--report-data", "00" * 64], ["--any-report-data"]):
        assert (
            "--claims checks nothing"
            in sevlaunch("owner", "report", tmp_path / "report", "--claims", *more, check=2).stderr
        )


def test_claims_of_a_turin_have_its_tcb(sevlaunch: Command) -> None:
    place = reports("ms-turin") / "report.bin"
    content = place.read_bytes()
    found = json.loads(sevlaunch("owner", "report", place, "--claims").stdout)["snp"]
    names = ("bootloader", "tee", "snp")
    assert [found[f"reported_tcb_{name}"] for name in names] == list(content[0x181:0x184])
    assert found["reported_tcb_microcode"] == content[0x187]
