"""`owner session`: what it makes opens for the platform and policy it was made for, or nothing is written."""

from __future__ import annotations

import base64
import json
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sevlaunch.errors import UsageError
from sevlaunch.owner.platform import PlatformNote, read_platform_note
from sevlaunch.owner.roots import fingerprint
from sevlaunch.owner.session import make_session
from sevlaunch.sevapi.certificate import Algorithm, Certificate, Signature, Usage
from sevlaunch.sevapi.session import TransportKeys, agree, unwrap
from sevlaunch.sevapi.status import FirmwareError
from tests.conftest import Command
from tests.owner.launches import NAPLES
from tests.owner.pki import flipped, sev_chain
from tests.owner.spoiled import SPOILED, spoiled
from tests.published import vector


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 0xFFFFFFFF))
def test_the_platform_opens_a_session_for_its_policy_only(policy: int) -> None:
    ours = sev_chain()
    made = make_session(ours.pdh, policy)
    godh = Certificate.from_bytes(made.godh.to_bytes())
    assert (godh.usage, godh.algorithm) == (Usage.PDH, Algorithm.ECDH_SHA256)
    z = agree(ours.pdh_key, godh.public_key)
    assert unwrap(made.blob, policy, z) == made.keys
    with pytest.raises(FirmwareError):
        unwrap(made.blob, policy ^ 1, z)


def test_each_session_has_keys_of_its_own() -> None:
    first, second = (make_session(sev_chain().pdh, 0x33) for _ in range(2))
    keys = {first.keys.tik, first.keys.tek, second.keys.tik, second.keys.tek}
    assert len(keys) == 4
    assert first.godh != second.godh
    assert not any(key.hex() in repr(first) for key in keys)


def test_a_pdh_whose_key_is_none_is_refused() -> None:
    pdh = replace(sev_chain().pdh, key=bytes(1028))
    with pytest.raises(UsageError, match="P-384"):
        make_session(pdh, 0x33)


FORMS: dict[str, Callable[[bytes], bytes]] = {
    "raw": bytes,
    "base64": base64.encodebytes,
    "hexadecimal": lambda content: content.hex().encode(),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("exported", [False, True])
def test_the_files_open_for_the_platform(form: str, exported: bool, tmp_path: Path, sevlaunch: Command) -> None:
    ours = sev_chain()
    pdh, prefix = tmp_path / "pdh", tmp_path / "vm"
    pdh.write_bytes(FORMS[form](ours.exported if exported else ours.pdh.to_bytes()))
    words = ("owner", "session", "--pdh", pdh, "--policy", "no-debug,sev", "--out", prefix)
    refused = sevlaunch(*words, check=9)
    assert "vouched for by nobody, not by AMD" in refused.stderr
    assert made(tmp_path) == []
    result = sevlaunch(*words, "--insecure")
    assert "nothing proves" in result.stderr
    assert ("signed by OCA and CEK" in result.stdout) == exported
    content = {
        name: Path(f"{prefix}_{name}").read_bytes() for name in ("godh.b64", "session.b64", "tik.bin", "tek.bin")
    }
    godh = Certificate.from_bytes(base64.b64decode(content["godh.b64"]))
    z = agree(ours.pdh_key, godh.public_key)
    keys = TransportKeys(tek=content["tek.bin"], tik=content["tik.bin"])
    assert unwrap(base64.b64decode(content["session.b64"]), 0x21, z) == keys
    assert PlatformNote(root=None).sealed(keys.tik).to_bytes() == Path(f"{prefix}_platform.json").read_bytes()
    for name in ("tik.bin", "tek.bin", "platform.json"):
        assert stat.S_IMODE(Path(f"{prefix}_{name}").stat().st_mode) == 0o600
    assert keys.tik.hex() not in result.stdout + result.stderr
    assert base64.b64encode(keys.tik).decode() not in result.stdout + result.stderr


def made(folder: Path) -> list[str]:
    """The files of a session in ``folder``, half-written ones too."""
    return sorted(path.name for path in folder.iterdir() if "vm" in path.name)


def test_the_naples_chain_is_shown_up_to_amds_root(tmp_path: Path, sevlaunch: Command) -> None:
    for name in ("pdh", "pek", "oca", "cek", "ask", "ark"):
        (tmp_path / name).write_bytes(vector(f"naples-{name}.cert"))
    (tmp_path / "chain").write_bytes(b"".join((tmp_path / name).read_bytes() for name in ("pek", "oca", "cek")))
    given: list[str | Path] = [
        "owner",
        "session",
        "--pdh",
        tmp_path / "pdh",
        "--chain",
        tmp_path / "chain",
        "--policy",
        "0x2f",
    ]
    authorities: list[str | Path] = ["--ca", tmp_path / "ask", "--ca", tmp_path / "ark"]
    result = sevlaunch(*given, *authorities, "--out", tmp_path / "vm", "--format", "json")
    assert (result.json["ok"], result.json["verified"], result.stderr) == (True, True, "")
    assert len(made(tmp_path)) == 5
    note = read_platform_note(tmp_path / "vm_platform.json", (tmp_path / "vm_tik.bin").read_bytes())
    assert (note.root, note.is_amds) == (NAPLES, True)
    assert result.json["vouched_by"] == {"root": NAPLES, "amd": True}
    text = sevlaunch(*given, *authorities, "--out", tmp_path / "vm2").stdout
    assert "AMD's root key for Naples" in text


@pytest.mark.parametrize("altered", ["pdh", "pek", "oca", "cek"])
def test_a_chain_that_fails_stops_the_command(altered: str, tmp_path: Path, sevlaunch: Command) -> None:
    content = {name: vector(f"naples-{name}.cert") for name in ("pdh", "pek", "oca", "cek")}
    # A bit of the API version: the certificate is still one.
    content[altered] = flipped(content[altered], 5 * 8)
    chain = tmp_path / "chain"
    chain.write_bytes(b"".join(content.values()))
    authorities = tmp_path / "authorities"
    authorities.write_bytes(vector("naples-ask.cert") + vector("naples-ark.cert"))
    given: list[str | Path] = [
        "owner",
        "session",
        "--pdh",
        chain,
        "--ca",
        authorities,
        "--policy",
        "0x1",
        "--out",
        tmp_path / "vm",
    ]
    result = sevlaunch(*given, "--format", "json", check=1)
    assert (result.json["ok"], result.json["verified"], result.json["files"]) == (False, False, {})
    assert any(check["ok"] is False for check in result.json["checks"])
    assert "nothing was written" in result.stderr
    assert made(tmp_path) == []


def test_an_unknown_root_stops_the_command_unless_it_is_given(tmp_path: Path, sevlaunch: Command) -> None:
    ours = sev_chain()
    (tmp_path / "full").write_bytes(ours.exported + ours.authorities)
    (tmp_path / "root").write_bytes(ours.ark.to_bytes())
    given: list[str | Path] = [
        "owner",
        "session",
        "--pdh",
        tmp_path / "full",
        "--policy",
        "1",
        "--out",
        tmp_path / "vm",
    ]
    for named in ([], ["--root", str(tmp_path / "root")]):
        result = sevlaunch(*given, *named, "--format", "json", check=9)
        assert (result.json["ok"], result.json["files"]) == (False, {})
        assert json.loads(result.stderr)["error"]["kind"] == "InsecureUse"
        assert made(tmp_path) == []
    assert "REHEARSAL or unknown root: " in sevlaunch(*given, check=9).stdout
    assert "the root that was given" in sevlaunch(*given, "--root", tmp_path / "root", "--insecure").stdout
    note = read_platform_note(tmp_path / "vm_platform.json", (tmp_path / "vm_tik.bin").read_bytes())
    assert (note.root, note.is_amds) == (fingerprint(ours.ark.public_key), False)


def test_another_root_than_the_given_one_is_a_no_whoever_insists(tmp_path: Path, sevlaunch: Command) -> None:
    ours = sev_chain()
    (tmp_path / "full").write_bytes(ours.exported + ours.authorities)
    (tmp_path / "root").write_bytes(vector("naples-ark.cert"))
    given: list[str | Path] = ["--pdh", tmp_path / "full", "--root", tmp_path / "root", "--policy", "1"]
    refused = sevlaunch("owner", "session", *given, "--insecure", "--out", tmp_path / "vm", check=1)
    assert "wanted the root that was given" in refused.stdout
    assert made(tmp_path) == []


@pytest.mark.parametrize("missing", ["chain", "cek's signature"])
def test_who_gives_amds_keys_gets_no_session_without_proof(missing: str, tmp_path: Path, sevlaunch: Command) -> None:
    ours = sev_chain()
    cek = replace(ours.cek, signatures=(Signature(), Signature()))
    bare = ours.pdh.to_bytes()
    (tmp_path / "pdh").write_bytes(bare if missing == "chain" else ours.exported[: 3 * 2084] + cek.to_bytes())
    (tmp_path / "ca").write_bytes(ours.authorities)
    given: list[str | Path] = [
        "--pdh",
        tmp_path / "pdh",
        "--ca",
        tmp_path / "ca",
        "--root",
        tmp_path / "ca",
        "--policy",
        "1",
    ]
    sevlaunch("owner", "session", *given, "--out", tmp_path / "vm", check=9 if missing == "chain" else 1)
    assert made(tmp_path) == []


@pytest.mark.parametrize("there", ["godh.b64", "session.b64", "tik.bin", "tek.bin", "platform.json"])
def test_nothing_is_overwritten(there: str, tmp_path: Path, sevlaunch: Command) -> None:
    (tmp_path / "pdh").write_bytes(sev_chain().pdh.to_bytes())
    (tmp_path / f"vm_{there}").write_text("old")
    given: list[str | Path] = ["owner", "session", "--pdh", tmp_path / "pdh", "--policy", "1", "--out", tmp_path / "vm"]
    given.append("--insecure")
    assert "exists already" in sevlaunch(*given, check=2).stderr
    assert (made(tmp_path), (tmp_path / f"vm_{there}").read_text()) == ([f"vm_{there}"], "old")


@pytest.mark.parametrize("kind", SPOILED)
@pytest.mark.parametrize("option", ["--pdh", "--chain", "--ca", "--root"])
def test_files_that_are_none_are_wrong_usage(kind: str, option: str, tmp_path: Path, sevlaunch: Command) -> None:
    ours = sev_chain()
    given = {"--pdh": tmp_path / "pdh", option: spoiled(kind, ours.exported, tmp_path / "spoiled")}
    (tmp_path / "pdh").write_bytes(ours.pdh.to_bytes())
    arguments: list[str | Path] = [part for pair in given.items() for part in pair]
    result = sevlaunch("owner", "session", *arguments, "--policy", "1", "--insecure", "--out", tmp_path / "vm", check=2)
    assert "spoiled" in result.stderr
    assert "Traceback" not in result.stderr
    assert made(tmp_path) == []


def test_a_policy_that_lets_the_host_in_is_warned_of(tmp_path: Path, sevlaunch: Command) -> None:
    (tmp_path / "pdh").write_bytes(sev_chain().pdh.to_bytes())
    for policy, warnings in (("0x33", 0), ("no-key-sharing,domain", 1), ("0", 3)):
        arguments = ("--pdh", tmp_path / "pdh", "--policy", policy, "--insecure", "--out", tmp_path / policy)
        said = sevlaunch("owner", "session", *arguments, check=None).stderr
        assert said.count("sevlaunch: warning: the policy ") == warnings


def test_a_policy_that_is_none_is_wrong_usage(tmp_path: Path, sevlaunch: Command) -> None:
    (tmp_path / "pdh").write_bytes(sev_chain().pdh.to_bytes())
    for policy in ("0x40", "what", "-1", "0x100000000"):
        given: list[str | Path] = ["--pdh", tmp_path / "pdh", f"--policy={policy}", "--out", tmp_path / "vm"]
        assert "policy" in sevlaunch("owner", "session", *given, check=2).stderr
    assert made(tmp_path) == []


def test_a_file_without_a_pdh_is_said(tmp_path: Path, sevlaunch: Command) -> None:
    (tmp_path / "pek").write_bytes(sev_chain().pek.to_bytes())
    given: list[str | Path] = ["--pdh", tmp_path / "pek", "--policy", "1", "--out", tmp_path / "vm"]
    assert "no PDH certificate" in sevlaunch("owner", "session", *given, check=2).stderr
