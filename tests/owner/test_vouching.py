"""`owner verify` and `owner secret` ask who vouched for the platform, and `secret` for the answer of `verify`."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from sevlaunch.errors import InsecureUse
from sevlaunch.owner.answer import Answer, require_verified, write_answer
from sevlaunch.owner.claims import HostClaims
from sevlaunch.owner.platform import PlatformNote, read_platform_note, require_vouched
from sevlaunch.owner.roots import fingerprint
from sevlaunch.owner.sealed import beside
from sevlaunch.owner.secret import read_packet
from sevlaunch.sevapi.secret import LUKS_PASSPHRASE, secret_table, unwrap_secret
from sevlaunch.sevapi.session import TransportKeys
from tests.conftest import Command, Result
from tests.owner.launches import NAPLES, TEK, TIK, write_keys
from tests.owner.pki import sev_chain
from tests.owner.test_verify import IMAGE, SEV

CLAIMS = msgspec.convert(SEV.evidence(), HostClaims)
OTHER = "11" * 32
Call = Callable[..., Result]


@pytest.fixture
def call(sevlaunch: Command, base: Path) -> Call:
    """Runs an owner's command where the session's files, a profile and the evidence of a launch are."""
    (base / "ovmf.fd").write_bytes(IMAGE)
    (base / "sev.yaml").write_text("cpus: 2\nfirmware: {image: ovmf.fd}\nsecurity: {type: sev, policy: 0x33}\n")
    (base / "passphrase").write_bytes(b"secret")
    (base / "root").write_bytes(sev_chain().ark.to_bytes())
    write_keys(base)
    SEV.write(base)
    return lambda *words, **options: sevlaunch("owner", *words, cwd=base, **options)


VERIFY = ("verify", "evidence.json", "--tik", "tik.bin", "--profile", "sev.yaml")
SECRET = (
    "secret",
    "--evidence",
    "evidence.json",
    "--tik",
    "tik.bin",
    "--tek",
    "tek.bin",
    "--secret",
    "luks:passphrase",
)


def say(base: Path, **changes: Any) -> None:
    """Change what the host says."""
    (base / "evidence.json").write_text(json.dumps({**SEV.evidence(), **changes}))


@pytest.mark.parametrize(
    ("root", "trusted", "rehearsal", "claimed", "answer"),
    [
        (NAPLES, None, False, False, "AMD's root key for Naples"),
        (NAPLES, NAPLES, False, False, f"the root that was given: {NAPLES}"),
        (OTHER, OTHER, False, False, f"the root that was given: {OTHER}"),
        (OTHER, None, True, True, "REHEARSAL, which proves nothing"),
        (None, None, True, True, "REHEARSAL, which proves nothing: nobody"),
        # Refused: another root than the one named, nobody's, and a rehearsal that says that it is none.
        (NAPLES, OTHER, False, False, None),
        (None, OTHER, True, True, None),
        (OTHER, None, False, False, None),
        (OTHER, None, False, True, None),
        (OTHER, None, True, False, None),
        (None, None, True, False, None),
        (None, None, False, False, None),
    ],
)
def test_who_is_believed(root: str | None, trusted: str | None, rehearsal: bool, claimed: bool, answer: str) -> None:
    note, claims = PlatformNote(root=root), replace(CLAIMS, rehearsal=claimed)
    if answer:
        assert require_vouched(note, claims, trusted=trusted, rehearsal=rehearsal).startswith(answer)
        return
    with pytest.raises(InsecureUse, match="the platform of this session was vouched for by"):
        require_vouched(note, claims, trusted=trusted, rehearsal=rehearsal)


@pytest.mark.parametrize("command", [VERIFY, (*SECRET, "--unverified")], ids=["verify", "secret"])
def test_a_platform_that_amd_does_not_vouch_for_gets_no_answer(
    command: tuple[str, ...], call: Call, base: Path
) -> None:
    ours = fingerprint(sev_chain().ark.public_key)
    for root, told in ((None, "--chain"), (ours, "--root FILE")):
        write_keys(base, root=root)
        for more in ([], ["--rehearsal"], ["--insecure"] if command is VERIFY else []):
            refused = call(*command, *more, check=9)
            assert told in refused.stderr
            assert refused.stdout == ""
    assert not (base / "header.b64").exists()
    assert not (base / "verdict.json").exists()
    assert call(*command, "--root", "root").code == 0
    write_keys(base)
    assert "not by the root given" in call(*command, "--root", "root", check=9).stderr


@pytest.mark.parametrize("command", [VERIFY, (*SECRET, "--unverified")], ids=["verify", "secret"])
def test_without_the_note_of_this_session_there_is_no_answer(command: tuple[str, ...], call: Call, base: Path) -> None:
    note = base / "platform.json"
    content = note.read_bytes()
    note.rename(base / "elsewhere")
    assert "there is no platform.json" in call(*command, check=9).stderr
    call(*command, "--platform", "elsewhere")
    note.write_bytes(PlatformNote(root=NAPLES).sealed(TEK).to_bytes())
    assert "was changed, or belongs to another session" in call(*command, check=9).stderr
    note.write_bytes(PlatformNote(root=NAPLES).to_bytes())
    assert "was changed" in call(*command, check=9).stderr
    write_keys(base, root=OTHER)
    note.write_bytes(note.read_bytes().replace(OTHER.encode(), NAPLES.encode()))
    assert "was changed" in call(*command, check=9).stderr
    note.write_bytes(content.replace(b'"platform": 1', b'"platform": 2'))
    assert "can't be read" in call(*command, check=2).stderr


def test_a_note_is_not_taken_for_another(tmp_path: Path) -> None:
    write_answer(tmp_path / "verdict", CLAIMS, TIK, verified=True)
    with pytest.raises(Exception, match="can't be read"):
        read_platform_note(tmp_path / "verdict", TIK)


@pytest.mark.parametrize(
    ("tik", "found"), [("vm_tik.bin", "vm_x"), ("tik.bin", "x"), ("a/b_tik.bin", "a/b_x"), ("key", "key.x")]
)
def test_what_lies_beside_a_key(tik: str, found: str) -> None:
    assert beside(Path(tik), "x") == Path(found)


def test_beside_standard_input_lies_nothing(call: Call, base: Path) -> None:
    words = ("verify", "evidence.json", "--tik", "-", "--profile", "sev.yaml")
    assert "name it: --platform FILE" in call(*words, check=2, input=TIK.hex()).stderr
    refused = call(*words, "--platform", "platform.json", check=2, input=TIK.hex())
    assert "name it: --verdict FILE" in refused.stderr
    call(*words, "--platform", "platform.json", "--verdict", "yes", input=TIK.hex())
    assert (base / "yes").exists()


def test_verify_and_secret_in_one_step(call: Call, base: Path) -> None:
    words = (*VERIFY, "--secret", "luks:passphrase")
    result = call(*words, "--format", "json").json
    assert (result["verified"], result["platform"]) == (True, "AMD's root key for Naples")
    assert result["packet"]["secrets"] == [str(LUKS_PASSPHRASE)]
    packet = read_packet(base / result["packet"]["header"], base / result["packet"]["payload"])
    keys = TransportKeys(tek=TEK, tik=TIK)
    plain = unwrap_secret(keys, packet.header, packet.payload, len(packet.payload), CLAIMS.measure)
    assert plain == secret_table([(LUKS_PASSPHRASE, b"secret")])
    assert "exists already" in call(*words, check=2).stderr
    text = call(*words, "--header", "h", "--payload", "p").stdout
    assert "on the host: sevlaunch inject guest --header h --payload p" in text
    assert text.endswith("guest: verified\n")
    for name in ("header.b64", "payload.b64", "h", "p"):
        assert stat.S_IMODE((base / name).stat().st_mode) == 0o600


def test_no_secret_is_wrapped_after_a_no(call: Call, base: Path) -> None:
    words = (*VERIFY, "--secret", "luks:passphrase", "--format", "json")
    assert call(*words, "--min-api", "9.0", check=1).json["packet"] is None
    assert not (base / "header.b64").exists()
    say(base, sev={**SEV.evidence()["sev"], "state": "running"})
    assert "past the launch" in call(*words, check=8).stderr
    assert "go with --secret" in call(*VERIFY, "--header", "h", check=2).stderr
    (base / "tek.bin").unlink()
    SEV.write(base)
    assert "tek.bin" in call(*words, check=2).stderr
    assert sorted(path.name for path in base.glob("*.b64")) == []


def test_secret_asks_for_a_yes_about_this_launch(call: Call, base: Path) -> None:
    refused = call(*SECRET, check=9).stderr
    assert "there is no verdict.json" in refused
    assert "--unverified" in refused
    call(*VERIFY, "--min-api", "9.0", check=1)
    assert "is not verified, says verdict.json" in call(*SECRET, check=9).stderr
    call(*VERIFY, "--verdict", "yes")
    assert stat.S_IMODE((base / "yes").stat().st_mode) == 0o600
    assert "is not verified" in call(*SECRET, check=9).stderr
    # What the host sends with another measurement was not verified, should it be 48 zero bytes.
    for other in ("A" * 64, replace(SEV, build_id=9).evidence()["measurement"]):
        say(base, measurement=other)
        assert "another launch" in call(*SECRET, "--verdict", "yes", check=9).stderr
    say(base)
    assert not (base / "header.b64").exists()
    assert call(*SECRET, "--verdict", "yes", "--format", "json").json["verified"] is True
    assert "contradict" in call(*SECRET, "--verdict", "yes", "--unverified", check=2).stderr


def test_who_insists_gets_a_packet_and_a_warning(call: Call, base: Path) -> None:
    result = call(*SECRET, "--unverified", "--format", "json")
    assert result.json["verified"] is False
    assert "nobody verified the launch of guest" in result.stderr


def test_a_verdict_that_was_changed_is_none(tmp_path: Path) -> None:
    file = tmp_path / "verdict"
    write_answer(file, CLAIMS, TIK, verified=True)
    require_verified(file, CLAIMS, TIK)
    write_answer(file, CLAIMS, TIK, verified=False)
    file.write_bytes(file.read_bytes().replace(b"false", b"true"))
    with pytest.raises(InsecureUse, match="was changed"):
        require_verified(file, CLAIMS, TIK)
    file.write_bytes(Answer.about(CLAIMS, verified=True).to_bytes())
    with pytest.raises(InsecureUse, match="was changed"):
        require_verified(file, CLAIMS, TIK)


def test_a_verdict_that_can_t_be_written_is_said(call: Call) -> None:
    assert "--verdict FILE" in call(*VERIFY, "--verdict", "no/such/folder", check=2).stderr
