"""Init-data in a profile: what a document is, what HOST_DATA is of it, and what contradicts itself."""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sevlaunch.errors import ProfileError
from sevlaunch.profile.initdata_values import parse_initdata, write_initdata
from sevlaunch.profile.loader import loads

TOML = b'version = "0.1.0"\nalgorithm = "sha-256"\n\n[data]\n"aa.toml" = """\nkey = 1\n"""\n'
SNP = "name: g\nsecurity: {type: sev-snp}\n"
# A document whose writer has bound a seed.
BOUND = {"seed/meta-data": "00" * 32, "seed/user-data": "11" * 32}
SEED = "first_boot: {ssh_keys: []}\n"


@pytest.mark.parametrize(
    ("algorithm", "name", "host_data"),
    [
        ("sha-256", "sha256", lambda digest: digest),
        ("sha256", "sha256", lambda digest: digest),
        ("sha-384", "sha384", lambda digest: digest[:32]),
        ("sha384", "sha384", lambda digest: digest[:32]),
        ("sha-512", "sha512", lambda digest: digest[:32]),
    ],
)
def test_host_data_is_the_digest_of_the_bytes_as_they_are(algorithm: str, name: str, host_data: object) -> None:
    content = TOML.replace(b"sha-256", algorithm.encode()) + b"# a comment counts, too\n"
    found = parse_initdata(content)
    digest = hashlib.new(name, content).digest()
    assert callable(host_data)
    assert (found.digest, found.host_data) == (digest, host_data(digest))
    assert len(found.host_data) == 32
    assert found.data == {"aa.toml": "key = 1\n"}


def test_json_is_as_good_as_toml() -> None:
    content = json.dumps({"version": "0.1.0", "algorithm": "sha-384", "data": {"a": "b"}}).encode()
    assert parse_initdata(content).data == {"a": "b"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff", "no text in UTF-8"),
        (b"version = ", "wanted init-data in TOML or JSON"),
        (b'{"version": ', "JSON with a mistake"),
        (b"[" * 100_000, "wanted init-data in TOML or JSON"),
        (b'version = "0.2.0"\nalgorithm = "sha-256"\n', "wanted init-data of version '0.1.0', found version '0.2.0'"),
        (b'algorithm = "sha-256"\n', "found version None"),
        (b'version = "0.1.0"\nalgorithm = "md5"\n', "wanted an algorithm of sha-256, sha-384, sha-512, found 'md5'"),
        (b'version = "0.1.0"\nalgorithm = 256\n', "found 256"),
        (b'version = "0.1.0"\nalgorithm = "sha-256"\n[data]\na = 1\n', "whose values are texts"),
        (b'version = "0.1.0"\nalgorithm = "sha-256"\ndata = "a"\n', "whose values are texts"),
        (b"#" * ((1 << 20) + 1), "at most 1 MiB"),
    ],
)
def test_what_is_no_init_data_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_initdata(content)


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8"))))
def test_what_is_written_says_what_it_was_given_in_any_order(data: dict[str, str]) -> None:
    content = write_initdata("sha-256", data)
    assert tomllib.loads(content.decode())["data"] == data == parse_initdata(content).data
    assert content == write_initdata("sha-256", dict(reversed(data.items())))


def test_a_file_is_taken_as_it_is_relative_to_the_profile(tmp_path: Path) -> None:
    (tmp_path / "initdata.toml").write_bytes(TOML)
    for text in ("initdata: initdata.toml\n", "initdata: {file: initdata.toml}\n"):
        said = loads(SNP + text, base=tmp_path).profile.initdata
        assert said and said.file == TOML


def refusals(text: str, base: Path | None = None) -> list[str]:
    """What is wrong with a profile, each with its place."""
    with pytest.raises(ProfileError) as caught:
        loads(text, file="p.yaml", base=base)
    return [f"{problem.location}: {problem.path}: {problem.message}" for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("initdata: nothing.toml\n", "p.yaml:3:11: initdata.file", "can't read"),
        ("initdata: wrong.toml\n", "p.yaml:3:11: initdata.file", "wanted init-data of version"),
        ("initdata: {file: right.toml, data: {a: b}}\n", "initdata.data", "the file says all: leave data out"),
        ("initdata: {file: right.toml, bind: [first_boot]}\n" + SEED, "initdata.bind", "the file says all"),
        ("initdata: {data: {seed/user-data: x}}\n", "initdata.data", "names that begin with seed/ or file/"),
        ("initdata: {bind: [first_boot]}\n", "p.yaml:3:18: initdata.bind", "the seed is bound, and there is none"),
        ("initdata: {bind: [network_config]}\n" + SEED, "initdata.bind", "add first_boot to bind"),
        (
            "initdata: {bind: [first_boot]}\nfirst_boot: {ssh_keys: [], network_config: {version: 2}}\n",
            "initdata.bind",
            "the guest takes it, too: add network_config to bind",
        ),
        ("initdata: {bind: [first_boot, network_config]}\n" + SEED, "initdata.bind", "leave it out of bind"),
        ("initdata: {bind: [first_boot]}\nfirst_boot: true\n", "first_boot.ssh_keys", "auto: keys that are found at"),
        ("initdata: {bind: [first_boot]}\nfirst_boot: {ssh_keys: own}\n", "first_boot.ssh_keys", "own: keys that are"),
        ("initdata: binds.toml\nfirst_boot: true\n", "first_boot.ssh_keys", "auto: keys that are found at"),
        ("initdata: {bind: [all]}\n" + SEED, "initdata.bind.0", "wanted one of first_boot, network_config"),
        ("initdata: {algorithm: md5}\n", "initdata.algorithm", "wanted one of sha-256, sha-384, sha-512"),
        ("initdata: {data: {'a b': x}}\n", "initdata.data.a b", "wanted a name of letters"),
    ],
)
def test_what_contradicts_itself_is_refused_where_it_stands(
    text: str, place: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "right.toml").write_bytes(TOML)
    (tmp_path / "wrong.toml").write_bytes(TOML.replace(b"0.1.0", b"0.9.0"))
    (tmp_path / "binds.toml").write_bytes(write_initdata("sha-256", BOUND))
    found = refusals(SNP + text, tmp_path)
    assert any(place in line and message in line for line in found), found


def test_host_data_has_one_source(tmp_path: Path) -> None:
    text = f"name: g\nsecurity: {{type: sev-snp, host_data: '{'00' * 32}'}}\ninitdata: {{data: {{a: b}}}}\n"
    assert "the digest of initdata is the launch's host_data" in refusals(text)[0]


@pytest.mark.parametrize("kind", ["none", "sev", "sev-es"])
def test_a_guest_without_host_data_is_told_what_init_data_does_not_prove(kind: str) -> None:
    loaded = loads(f"name: g\nsecurity: {kind}\ninitdata: {{data: {{a: b}}}}\n")
    assert any(f"type {kind} has no HOST_DATA" in warning.message for warning in loaded.warnings)


def test_a_bound_seed_is_no_longer_warned_of(tmp_path: Path) -> None:
    (tmp_path / "binds.toml").write_bytes(write_initdata("sha-256", BOUND))
    (tmp_path / "right.toml").write_bytes(TOML)
    bound, by_file, loose, loose_file = (
        {warning.path for warning in loads(SNP + SEED + text, base=tmp_path).warnings}
        for text in (
            "initdata: {bind: [first_boot]}\n",
            "initdata: binds.toml\n",
            "initdata: {data: {a: b}}\n",
            "initdata: right.toml\n",
        )
    )
    assert "first_boot" in loose & loose_file and "first_boot" not in bound | by_file
