"""first_boot in a profile: what it takes, and each mistake at its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from sevlaunch.errors import ProfileError
from sevlaunch.profile.loader import LoadedProfile, loads
from sevlaunch.profile.model.first_boot import FirstBoot

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIG5vIHJlYWwga2V5LCB3aGljaCBub2JvZHkgaGFzIGl0 me@home"
TOML = "[settings]\nkey = 1\n"


def said(text: str, base: Path) -> FirstBoot:
    """first_boot of a profile that has nothing else."""
    found = loads(text, file="web.yaml", base=base).profile.first_boot
    assert found is not None
    return found


def mistakes(text: str, base: Path) -> list[str]:
    """The mistakes in a profile, from the place on."""
    with pytest.raises(ProfileError) as caught:
        loads(text, file="web.yaml", base=base)
    return [str(problem) for problem in caught.value.problems]


def warned(text: str, base: Path) -> list[str]:
    """The warnings about a profile."""
    loaded: LoadedProfile = loads(text, file="web.yaml", base=base)
    return [str(warning) for warning in loaded.warnings]


def test_true_is_a_seed_with_defaults_and_false_is_none(tmp_path: Path) -> None:
    assert said("first_boot: true", tmp_path) == FirstBoot()
    assert said("first_boot: {}", tmp_path).ssh_keys == "auto"
    assert loads("first_boot: false", base=tmp_path).profile.first_boot is None
    assert loads("{}", base=tmp_path).profile.first_boot is None


def test_keys_are_named_as_text_or_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "team.pub").write_text(f"# the team\n{KEY}\n\n{KEY}2\n")
    found = said(f"first_boot: {{ssh_keys: ['{KEY}', team.pub]}}", tmp_path)
    assert found.ssh_keys == [KEY, f"{KEY}\n{KEY}2"]
    assert said("first_boot: {ssh_keys: []}", tmp_path).ssh_keys == []
    assert said("first_boot: {ssh_keys: own}", tmp_path).ssh_keys == "own"


def test_documents_are_files_or_mappings(tmp_path: Path) -> None:
    (tmp_path / "user.yaml").write_text("#cloud-config\n# mine\ntimezone: UTC\n")
    (tmp_path / "net.yaml").write_text("network: {version: 2}\n")
    files = said("first_boot: {user_data: user.yaml, network_config: net.yaml}", tmp_path)
    assert files.user_data == "#cloud-config\n# mine\ntimezone: UTC\n"
    assert files.network_config == "network: {version: 2}\n"
    inline = said(
        "first_boot: {user_data: {timezone: UTC}, network_config: {version: 1, config: []}, meta_data: {role: db}}",
        tmp_path,
    )
    assert inline.user_data == "#cloud-config\ntimezone: UTC\n"
    assert inline.network_config == "version: 1\nconfig: []\n"
    assert inline.meta_data == {"role": "db"}


@pytest.mark.parametrize(
    ("value", "mistake"),
    [
        ("hostname: a_b", "1:24: first_boot.hostname: wanted a host name of letters, digits, - and dots, found 'a_b'"),
        ("user: Admin", "1:20: first_boot.user: wanted the name of a user"),
        ("ssh_keys: all", "1:24: first_boot.ssh_keys: wanted a list, found 'all'"),
        ("ssh_keys: [no.pub]", "1:25: first_boot.ssh_keys.0: wanted a public SSH key, or the path of a file with some"),
        ("ssh_keys: [secret]", "1:25: first_boot.ssh_keys.0: wanted a public SSH key, found a private one: name"),
        ("ssh_keys: [user.toml]", "1:25: first_boot.ssh_keys.0: wanted a public SSH key such as 'ssh-ed25519 AAAA...'"),
        ("ssh_keys: [other.pub]", "found something else in {base}/other.pub:2"),
        ("ssh_keys: ['ssh-rsa AAAA me']", "1:25: first_boot.ssh_keys.0: wanted a public SSH key such as 'ssh-ed25519"),
        ("ssh_keys: [empty.pub]", "1:25: first_boot.ssh_keys.0: wanted public SSH keys, found none in "),
        (
            "user_data: 7",
            "1:25: first_boot.user_data: wanted user data: a file, or a mapping of #cloud-config; found int",
        ),
        (
            "user_data: none",
            "1:25: first_boot.user_data: wanted user data: a file, or a mapping of #cloud-config: can't",
        ),
        ("user_data: packed", "1:25: first_boot.user_data: wanted user data: a file, or a mapping of #cloud-config: "),
        ("user_data: broken.yaml", "broken.yaml:4:1: no valid YAML: "),
        ("user_data: {users: default}", "1:25: first_boot.user_data: wanted a list for users of #cloud-config"),
        ("user_data: remark.yaml", "remark.yaml: wanted a list for runcmd of #cloud-config"),
        ("user_data: lists.yaml", "lists.yaml: wanted a list for runcmd of #cloud-config"),
        ("user_data: {write_files: [{permissions: 0644}]}", "1:25: first_boot.user_data: write the permissions of"),
        ("meta_data: {instance-id: 7}", "1:25: first_boot.meta_data: wanted text for instance-id, found 7"),
        (
            "network_config: {version: 3}",
            "1:30: first_boot.network_config: wanted a network configuration of version 1",
        ),
        ("network_config: user.toml", "1:30: first_boot.network_config: "),
        (
            "files: [{path: etc/motd, content: x}]",
            "1:29: first_boot.files.0.path: wanted an absolute path in the guest",
        ),
        ("files: [{path: /a}]", "1:22: first_boot.files.0: wanted one of content and source, found neither"),
        ("files: [{path: /a, content: x, mode: 0644}]", "1:51: first_boot.files.0.mode: wanted permissions such as"),
        (
            "files: [{path: /a, content: x}, {path: /a, content: y}]",
            "1:53: first_boot.files.1.path: two files have the",
        ),
        ("run: reboot", "1:19: first_boot.run: wanted a list, found 'reboot'"),
        ("packages: ['-y']", "1:25: first_boot.packages.0: wanted the name of a package, found '-y'"),
        ("pacakges: []", "1:14: first_boot.pacakges: unknown key 'pacakges'; did you mean 'packages'?"),
        ("password_hash: $6$s$0123456789, user: null", "1:29: first_boot.password_hash: the password is that of user"),
        ("user_data: user.toml, run: [ls]", "first_boot.run: user_data is of no kind that cloud-init takes beside"),
    ],
)
def test_each_mistake_is_told_at_its_place(tmp_path: Path, value: str, mistake: str) -> None:
    (tmp_path / "user.toml").write_text(TOML)
    (tmp_path / "empty.pub").write_text("# nothing\n")
    (tmp_path / "secret").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    (tmp_path / "packed").write_bytes(b"\x1f\x8b\x08\xff")
    (tmp_path / "broken.yaml").write_text("#cloud-config\na: [\nb: c\n")
    (tmp_path / "lists.yaml").write_text("#cloud-config\nruncmd: ls\n")
    (tmp_path / "other.pub").write_text(f"{KEY}\nhunter2\n")
    (tmp_path / "remark.yaml").write_text("#Cloud-Config  # mine\nruncmd: ls\n")
    [found] = mistakes(f"first_boot: {{{value}}}", tmp_path)
    assert mistake.replace("{base}", str(tmp_path)) in found
    assert "hunter2" not in found
    assert found.startswith("web.yaml:1:")


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    text = "first_boot: {hostname: -, user: 0, ssh_keys: x, password_hash: y, user_data: none, run: [''], packages: z}"
    assert len(mistakes(text, tmp_path)) == 7


@pytest.mark.parametrize("value", ["hunter2", "$6$", "12345678", "[hunter2]", "$6$salt$has\\nh"])
def test_no_message_has_what_should_have_been_a_hash(tmp_path: Path, value: str) -> None:
    text = f'first_boot: {{password_hash: "{value}"}}' if value[0] != "[" else f"first_boot: {{password_hash: {value}}}"
    assert mistakes(text, tmp_path) == [
        "web.yaml:1:29: first_boot.password_hash: wanted the hash of a password, such as `openssl passwd -6` makes, "
        "found something else"
    ]


def test_what_stands_alone_is_said(tmp_path: Path) -> None:
    (tmp_path / "user.toml").write_text(TOML)
    [warning] = warned("first_boot: {user_data: user.toml}", tmp_path)
    assert warning.startswith("web.yaml:1:25: first_boot.user_data: it stands alone")
    (tmp_path / "script").write_text("#!/bin/sh\n")
    assert warned("first_boot: {user_data: script, run: [ls]}", tmp_path) == []


def test_packages_without_a_network_are_warned_of(tmp_path: Path) -> None:
    [warning] = warned("first_boot: {packages: [htop]}", tmp_path)
    assert warning.startswith(
        "web.yaml:1:24: first_boot.packages: packages come over a network, and the guest has none"
    )
    assert warned("first_boot: {packages: [htop]}\nnetworks: [{type: user}]", tmp_path) == []


@pytest.mark.parametrize("kind", ["sev", "sev-es", "sev-snp"])
def test_in_an_encrypted_guest_the_host_can_change_it(tmp_path: Path, kind: str) -> None:
    warnings = warned(f"security: {kind}\nfirst_boot: true", tmp_path)
    assert any(warning.startswith("web.yaml:2:13: first_boot: the host makes the seed") for warning in warnings)
    assert warned("first_boot: true", tmp_path) == []
