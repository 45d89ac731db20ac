"""check, schema, init and policy, as a user calls them."""

from __future__ import annotations

from pathlib import Path

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from sevlaunch.guest_type import GuestType
from sevlaunch.profile.loader import load
from sevlaunch.profile.model import UserNetwork
from sevlaunch.profile.template import starting_profile
from tests.conftest import HOSTS, PROFILES, Command


@pytest.mark.parametrize("guest_type", ["none", "sev", "sev-es", "sev-snp"])
def test_what_init_writes_passes_check(guest_type: str, sevlaunch: Command, base: Path) -> None:
    file = base / f"{guest_type}.yaml"
    assert str(file) in sevlaunch("init", "--type", guest_type, file).stdout
    assert file.read_text().startswith("# ")
    assert sevlaunch("check", file).stdout == f"{file}: ok\n"


@pytest.mark.parametrize("guest_type", ["none", "sev", "sev-es", "sev-snp"])
def test_what_init_writes_in_comments_is_a_profile_too(guest_type: str, sevlaunch: Command, base: Path) -> None:
    # Each commented line that is a top-level key or a list entry, taken in on its own.
    text = starting_profile(guest_type)  # type: ignore[arg-type]
    tried = 0
    for line in text.splitlines():
        if line.startswith(("# firmware:", "# boot: {kernel")):
            file = base / f"{tried}.yaml"
            file.write_text(text.replace(line, line.removeprefix("# ")))
            sevlaunch("check", file)
            tried += 1
        elif line.startswith("#  - "):
            file = base / f"{tried}.yaml"
            file.write_text(text.replace("disks: []", "disks:").replace(line, line[1:]))
            sevlaunch("check", file)
            tried += 1
    assert tried == 7


@pytest.mark.parametrize("image", ["debian-13", './my own: "x".qcow2', "disk{0}.img"])
@pytest.mark.parametrize("guest_type", ["none", "sev", "sev-es", "sev-snp"])
def test_init_names_the_image_that_is_asked_for(image: str, guest_type: str, sevlaunch: Command, base: Path) -> None:
    file = base / "p.yaml"
    sevlaunch("init", file, "--type", guest_type, "--image", image)
    sevlaunch("check", file)
    profile = load(file).profile
    assert profile.disks[0].image == (image if image == "debian-13" else str(base / Path(image)))
    assert profile.first_boot is not None
    assert isinstance(profile.networks[0], UserNetwork) and profile.networks[0].ssh == "auto"
    if image == "debian-13":
        lines = sevlaunch("render", file, "--host", HOSTS / "milan-qemu-11.1.json", "--format", "lines").stdout
        assert "/images/debian-13/image" in lines
        # Above it, in the guest's own folder.
        assert "disk0.qcow2" in lines and "first-boot" in lines
        assert ("sev-snp-guest" in lines) == (guest_type == "sev-snp")


def test_init_refuses_an_image_that_up_could_not_take(sevlaunch: Command, base: Path) -> None:
    assert "did you mean 'debian-13'" in sevlaunch("init", base / "p", "--image", "debian13", check=2).stderr
    assert "sha256" in sevlaunch("init", base / "p", "--image", "https://x.org/a.img", check=2).stderr
    assert not (base / "p").exists()


def test_init_makes_a_sev_guest_unless_told_otherwise(sevlaunch: Command, base: Path) -> None:
    sevlaunch("init", base / "p.yaml")
    assert (base / "p.yaml").read_text() == starting_profile(GuestType.SEV)


def test_init_as_json_names_the_file_and_the_type(sevlaunch: Command, base: Path) -> None:
    file = base / "p.yaml"
    assert sevlaunch("init", file, "--type", "sev-es", "--format", "json").json == {
        "profile": str(file),
        "type": "sev-es",
    }


def test_init_overwrites_nothing(sevlaunch: Command, base: Path) -> None:
    file = base / "p.yaml"
    file.write_text("mine\n")
    assert "exists already" in sevlaunch("init", file, check=2).stderr
    assert file.read_text() == "mine\n"
    (base / "link.yaml").symlink_to(base / "nowhere.yaml")
    sevlaunch("init", base / "link.yaml", check=2)
    assert not (base / "nowhere.yaml").exists()


def test_init_into_a_folder_that_is_not_there_is_wrong_usage(sevlaunch: Command, base: Path) -> None:
    result = sevlaunch("init", base / "no/p.yaml", check=2)
    assert "No such file or directory" in result.stderr


def test_init_knows_no_other_types(sevlaunch: Command, base: Path) -> None:
    sevlaunch("init", base / "p.yaml", "--type", "tdx", check=2)
    assert not (base / "p.yaml").exists()


def test_schema_prints_a_json_schema(sevlaunch: Command) -> None:
    schema = sevlaunch("schema").json
    Draft202012Validator.check_schema(schema)
    assert Draft202012Validator(schema).is_valid({"security": "sev"})


@pytest.mark.parametrize(
    "value", ["0x33", "51", "no-debug,no-key-sharing,domain,sev", "sev, domain, no-key-sharing, no-debug"]
)
def test_policy_shows_number_and_names(value: str, sevlaunch: Command) -> None:
    text = sevlaunch("policy", value).stdout
    assert text.splitlines()[0] == "0x33 = 51 (SEV)"
    assert [line.split()[2] for line in text.splitlines()[1:]] == ["no-debug", "no-key-sharing", "domain", "sev"]
    assert sevlaunch("policy", value, "--format", "json").json == {
        "policy": 51,
        "hex": "0x33",
        "names": ["no-debug", "no-key-sharing", "domain", "sev"],
        "warnings": [],
    }


def test_policy_shows_versions_and_snp(sevlaunch: Command) -> None:
    assert sevlaunch("policy", "--snp", "0x30137", "--format", "json").json["names"] == ["smt", "abi-1.55"]
    assert "abi-1.55" in sevlaunch("policy", "--snp", "smt,abi-1.55").stdout
    assert "0x30000 = 196608 (SEV-SNP)" in sevlaunch("policy", "--snp", "smt").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["0x40"], "sets reserved bit 6, which must be 0"),
        (["no-dbug"], "did you mean 'no-debug'?"),
        (["--snp", "0x10000"], "lacks bit 17, which must be 1: use 0x30000"),
        (["0x100000000"], "wanted a 32-bit policy, found 0x100000000"),
    ],
)
def test_what_is_no_policy_is_wrong_usage(arguments: list[str], message: str, sevlaunch: Command) -> None:
    result = sevlaunch("policy", *arguments, check=2)
    assert message in result.stderr
    assert result.stdout == ""


# Policies that let the host into the guest, the bits that the warnings name, and a QEMU that has the type.
OPEN_POLICIES = [
    ("sev", "0", ["no-debug", "no-key-sharing", "no-send"]),
    ("sev-es", "[es, no-key-sharing, no-send]", ["no-debug"]),
    ("sev-snp", "[smt, debug]", ["debug"]),
    ("sev-snp", "0x60000", ["migration-agent"]),
]


@pytest.mark.parametrize(("guest_type", "policy", "bits"), OPEN_POLICIES)
def test_each_command_warns_of_a_policy_that_lets_the_host_in(
    guest_type: str, policy: str, bits: list[str], sevlaunch: Command, base: Path
) -> None:
    profile = base / "open.yaml"
    profile.write_text(f"memory: 1G\nsecurity: {{type: {guest_type}, policy: {policy}}}\n")
    host = HOSTS / "milan-qemu-11.1.json"
    snp = ["--snp"] if guest_type == "sev-snp" else []
    checked = sevlaunch("check", profile)
    assert checked.stdout == f"{profile}: ok\n"
    warnings = checked.stderr.splitlines()
    assert len(warnings) == len(bits)
    for line, bit in zip(warnings, bits, strict=True):
        assert line.startswith(f"sevlaunch: warning: {profile}:2:")
        assert "security.policy: the policy " in line
        assert bit in line
    assert sevlaunch("render", profile, "--host", host).stderr.startswith(warnings[0])
    explained = sevlaunch("render", profile, "--host", host, "--format", "explain").stdout
    found = sevlaunch("check", profile, "--format", "json").json[0]
    assert found["ok"]
    assert [warning["path"] for warning in found["warnings"]] == ["security.policy"] * len(bits)
    assert found["warnings"][0]["message"] in explained
    value = policy.strip("[]").replace(" ", "")
    shown = sevlaunch("policy", *snp, value)
    assert [warning["message"] for warning in found["warnings"]] == [
        line.removeprefix("sevlaunch: warning: ") for line in shown.stderr.splitlines()
    ]
    assert len(sevlaunch("policy", *snp, value, "--format", "json").json["warnings"]) == len(bits)


def test_up_warns_as_check_does(sevlaunch: Command, qemu_binary: str) -> None:
    told = ["--set", "qemu.extra_args=[-action, shutdown=pause]", "--set", f"qemu.binary={qemu_binary}"]
    warning = "qemu.extra_args.1: shutdown=pause keeps QEMU when the guest has powered off"
    assert warning in sevlaunch("check", PROFILES / "plain.yaml", *told).stderr
    assert warning in sevlaunch("up", PROFILES / "plain.yaml", *told).stderr
    sevlaunch("down", "plain", "--now")


@pytest.mark.parametrize("guest_type", ["sev", "sev-es", "sev-snp"])
def test_no_command_warns_of_the_default_policy(guest_type: str, sevlaunch: Command, base: Path) -> None:
    profile = base / "default.yaml"
    profile.write_text(f"security: {guest_type}\n")
    assert sevlaunch("check", profile).stderr == ""
