"""Credentials and Ignition's configuration in a profile, and a seed in the schema for editors."""

from __future__ import annotations

from pathlib import Path

import pytest

from sevlaunch.errors import ProfileError
from sevlaunch.profile.boot_values import MOST_CREDENTIAL_BYTES
from sevlaunch.profile.loader import loads
from tests.profile.test_schema import accepted


def mistakes(text: str, base: Path) -> list[str]:
    """The mistakes in a profile."""
    with pytest.raises(ProfileError) as caught:
        loads(text, file="web.yaml", base=base)
    return [str(problem) for problem in caught.value.problems]


def test_a_credential_is_a_file_or_a_text(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"\x00\xff")
    profile = loads("credentials: {a.key: key, motd: {text: 'hello: you'}}", base=tmp_path).profile
    assert profile.credentials == {"a.key": b"\x00\xff", "motd": b"hello: you"}


@pytest.mark.parametrize(
    ("value", "mistake"),
    [
        ("[motd]", "1:14: credentials: wanted a mapping of names and values, found ['motd']"),
        ("{'a=b': {text: x}}", "1:15: credentials.a=b: wanted a name of letters, digits, and the signs _ . @ -"),
        ("{a: none}", "1:18: credentials.a: wanted the path of a file, or {text: ...}: can't read"),
        ("{a: {file: x}}", "1:18: credentials.a: wanted the path of a file, or {text: ...}, found another mapping"),
        ("{a: {text: 7}}", "1:18: credentials.a: wanted the path of a file, or {text: ...}, found another mapping"),
        ("{a: 7}", "1:18: credentials.a: wanted the path of a file, or {text: ...}; found int"),
        ("{a: large}", "1:18: credentials.a: wanted at most 32 KiB, which SMBIOS has room for, found more"),
        ("{a: half, b: half}", "1:14: credentials: they have more than 32 KiB together"),
    ],
)
def test_each_mistake_about_credentials_is_told_at_its_place(tmp_path: Path, value: str, mistake: str) -> None:
    (tmp_path / "large").write_bytes(bytes(MOST_CREDENTIAL_BYTES + 1))
    (tmp_path / "half").write_bytes(bytes(MOST_CREDENTIAL_BYTES // 2 + 1))
    [found] = mistakes(f"credentials: {value}", tmp_path)
    assert found.startswith(f"web.yaml:{mistake}")


@pytest.mark.parametrize("kind", ["sev", "sev-es", "sev-snp"])
def test_systemd_in_an_encrypted_guest_takes_no_credentials(tmp_path: Path, kind: str) -> None:
    text = f"credentials: {{a: {{text: x}}}}\nsecurity: {kind}\n"
    assert any("credentials: systemd in an encrypted guest takes no" in found for found in mistakes(text, tmp_path))


def test_ignition_is_json_of_its_own_kind(tmp_path: Path) -> None:
    (tmp_path / "right.ign").write_text('{"ignition": {"version": "3.4.0"}}')
    (tmp_path / "butane.bu").write_text("variant: fcos\n")
    (tmp_path / "other.json").write_text("{}")
    assert loads("ignition: right.ign", base=tmp_path).profile.ignition == f"{tmp_path}/right.ign"
    wanted = "web.yaml:1:11: ignition: wanted the path of an Ignition configuration"
    assert mistakes("ignition: butane.bu", tmp_path) == [
        f"{wanted}: {tmp_path}/butane.bu is no JSON; if it is Butane: butane {tmp_path}/butane.bu > FILE.ign"
    ]
    assert mistakes("ignition: other.json", tmp_path) == [
        f"{wanted}: {tmp_path}/other.json has no section called ignition"
    ]
    [missing] = mistakes("ignition: none.ign", tmp_path)
    assert missing.startswith(f"{wanted}: can't read {tmp_path}/none.ign: ")
    clash = "ignition: right.ign\nfw_cfg: [{name: opt/com.coreos/config, text: x}]"
    assert mistakes(clash, tmp_path)[0].startswith("web.yaml:2:17: fw_cfg.0.name: opt/com.coreos/config is where")


def test_the_host_can_change_ignition_of_an_encrypted_guest(tmp_path: Path) -> None:
    (tmp_path / "right.ign").write_text('{"ignition": {"version": "3.4.0"}}')
    warnings = loads("ignition: right.ign\nsecurity: sev-snp", file="web.yaml", base=tmp_path).warnings
    assert any(str(warning).startswith("web.yaml:1:11: ignition: ignition is what the host") for warning in warnings)


@pytest.mark.parametrize(
    ("text", "fine"),
    [
        ("first_boot: true", True),
        ("first_boot: {user_data: {users: []}, meta_data: m.yaml, network_config: {version: 2}}", True),
        ("first_boot: {user: null, ssh_keys: own, files: [{path: /a, content: x}]}", True),
        ("first_boot: {ssh_keys: [key.pub]}", True),
        ("first_boot: {user_data: [1]}", False),
        ("first_boot: {ssh_keys: 7}", False),
        ("credentials: {a: file, b: {text: x}}", True),
        ("credentials: {'a b': file}", False),
        ("credentials: {a: {txt: x}}", False),
        ("credentials: [a]", False),
        ("ignition: config.ign", True),
    ],
)
def test_editors_are_told_the_same(text: str, fine: bool) -> None:
    assert accepted(text) == fine
