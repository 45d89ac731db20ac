"""What hosts, guests, certificates and strangers' files say neither acts on a terminal nor looks like our answer."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import Any

import pytest

from sevlaunch.errors import GuestTimeout, HostError, Problem, ProfileError, QemuError, SevlaunchError
from sevlaunch.guest_type import GuestType
from sevlaunch.owner.digest import Launch
from sevlaunch.owner.firmware import Firmware
from sevlaunch.text import VisibleStream, check_guest_name, visible, visible_lines
from tests.cli.hostile import EVIL, LIES, SHOWN, WORD, clean
from tests.conftest import HOSTS, Command, wait_until
from tests.guest.support import PLAIN, some_qemu
from tests.owner.images import ovmf
from tests.owner.launches import Host
from tests.owner.pki import der, pem, processor


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, é, 中, \u00a0x", "plain text, é, 中, \u00a0x"),
        ("\x00\x07\x1b\x7f", r"\x00\x07\x1b\x7f"),
        ("\x80\x9b\x85", r"\x80\x9b\x85"),
        ("\r\n\t", r"\r\n\t"),
        ("\u202e\u2066\u200b\ufeff\u2028\U000e0041", r"\u202e\u2066\u200b\ufeff\u2028\U000e0041"),
        ("\udc80", r"\udc80"),
    ],
)
def test_control_characters_are_made_visible_and_nothing_else(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert visible(shown) == shown


def test_lines_and_tabs_stay_where_several_lines_are_shown() -> None:
    assert visible_lines("a\tb\r\nc\rd\n\x1b") == "a\tb\nc\\rd\n\\x1b"


def test_a_stream_is_the_same_however_it_is_cut() -> None:
    content = "é\x1b[0;1;32m  OK  \x1b[0m\r\n\x1b[2J\x1b]0;title\x07 50%\r100%\r\n中\x9b\x1b".encode() + b"\xff\xc3"
    whole = VisibleStream().feed(content, final=True)
    assert whole == "é  OK  \n\\x1b[2J\\x1b]0;title\\x07 50%\\r100%\n中\\x9b\\x1b\\xff\\xc3"
    for size in (1, 2, 3, 7):
        stream = VisibleStream()
        pieces = [content[start : start + size] for start in range(0, len(content), size)]
        assert "".join([*map(stream.feed, pieces), stream.feed(b"", final=True)]) == whole


@pytest.mark.parametrize("name", ["", ".", "-x", "a/b", "a\nb", "a\x1b", "a\u202eb", "x" * 65, 7, None])
def test_what_can_not_be_printed_is_no_guests_name(name: object) -> None:
    with pytest.raises(ValueError, match="printable text"):
        check_guest_name(name)


@pytest.mark.parametrize(
    "error",
    [
        SevlaunchError(EVIL, hint=EVIL, problems=[Problem(EVIL, EVIL, EVIL, EVIL)]),
        ProfileError(EVIL, problems=[Problem(EVIL, "x.yaml:1:1"), Problem(EVIL)]),
        ProfileError(EVIL, hint=EVIL),
        QemuError(EVIL, hint=EVIL, stderr=[EVIL, EVIL]),
        HostError(EVIL, problems=[Problem(EVIL)]),
        GuestTimeout("x", hint=f"its console says last:\n{EVIL}"),
    ],
)
def test_no_line_of_an_error_is_anybody_elses(error: SevlaunchError) -> None:
    for line in str(error).split("\n"):
        assert line.replace("\t", "").isprintable()
        # What a hint quotes is set in.
        assert line not in LIES


def evidence(**changes: Any) -> dict[str, Any]:
    """Evidence of a SEV launch."""
    return {**Host(Launch(GuestType.SEV, Firmware.of_image(ovmf())), 0x33).evidence(), **changes}


@pytest.mark.parametrize("command", ["verify", "secret"])
def test_evidence_of_a_guest_whose_name_no_guest_can_have_is_none(
    command: str, owner: Path, sevlaunch: Command
) -> None:
    file = owner / "evidence.json"
    file.write_text(json.dumps(evidence(name=EVIL)))
    (owner / "s").write_bytes(b"x")
    words: dict[str, list[str | Path]] = {
        "verify": [file, "--profile", owner / "sev.yaml"],
        "secret": ["--evidence", file, "--tek", owner / "tek.bin", "--secret", f"luks:{owner / 's'}", "--header"],
    }
    words["secret"] += [owner / "h", "--payload", owner / "p"]
    refused = sevlaunch("owner", command, *words[command], "--tik", owner / "tik.bin", check=7)
    assert "name: wanted 1 to 64 bytes of printable text" in clean(refused)
    assert refused.stdout == ""


@pytest.mark.parametrize(
    "changes",
    [
        {"state": EVIL},
        {"profile": EVIL, "command": [EVIL, "session-file=x"], "firmware": {"path": EVIL, "sha256": None}},
        {"qemu": {"binary": EVIL, "version": "7.2.22"}},
        {"qemu": {"binary": "/q", "version": EVIL}},
        {"sev": {**evidence()["sev"], "state": EVIL}},
        {"sev": {**evidence()["sev"], "type": EVIL}},
        {"measurement": EVIL},
        {EVIL: EVIL},
    ],
)
def test_owner_verify_prints_nothing_of_a_host_as_it_is(
    changes: dict[str, Any], owner: Path, sevlaunch: Command
) -> None:
    file = owner / "evidence.json"
    # Another build: the measurement is wrong.
    file.write_text(json.dumps(evidence(sev={**evidence()["sev"], "build_id": 9}) | changes))
    result = sevlaunch("owner", "verify", file, "--profile", owner / "sev.yaml", "--tik", owner / "tik.bin", check=None)
    text = clean(result)
    assert result.code in (1, 7)
    assert result.code == 7 or text.endswith("guest: NOT verified\n")


def test_files_whose_names_are_hostile(owner: Path, sevlaunch: Command) -> None:
    evil = owner / WORD
    evil.mkdir()
    (evil / "evidence.json").write_text(json.dumps(evidence()))
    (evil / "s").write_bytes(b"x")
    keys: list[str | Path] = ["--tik", owner / "tik.bin", "--tek", owner / "tek.bin"]
    wrapped = sevlaunch(
        *("owner", "secret", "--evidence", evil / "evidence.json", *keys, "--secret", f"luks:{evil / 's'}"),
        *("--header", evil / "h", "--payload", evil / "p", "--unverified"),
    )
    assert SHOWN in clean(wrapped)
    commands: tuple[tuple[str | Path, ...], ...] = (
        ("owner", "verify", evil, *keys[:2], "--profile", owner / "sev.yaml"),
        ("owner", "report", evil),
        ("owner", "report", evil / "none"),
        ("owner", "compare", evil, evil),
        ("owner", "session", "--pdh", evil / "none", "--policy", "0x33"),
        ("owner", "digest", "--type", "sev", "--firmware", evil / "none"),
        ("owner", "id-block", "--digest", "00" * 48, "--policy", "0x30000", "--id-key", evil / "none"),
        ("check", evil / "none.yaml"),
        ("render", evil / "none.yaml"),
        ("up", evil / "none.yaml"),
        ("unit", evil / "none.yaml"),
        ("import", evil / "none.xml"),
        ("doctor", "--host", evil / "none"),
        ("init", evil / "no" / "such.yaml"),
    )
    for words in commands:
        result = sevlaunch(*words, check=None)
        assert result.code, words
        assert SHOWN in clean(result), words


def test_lines_to_paste_are_quoted_for_the_shell(owner: Path, sevlaunch: Command) -> None:
    (owner / "evidence.json").write_text(json.dumps(evidence(name="it's $(id)")))
    (owner / "a b").mkdir()
    (owner / "s").write_bytes(b"x")
    header, payload = owner / "a b" / "$(reboot)", owner / "a b" / "p;q"
    wrapped = sevlaunch(
        *("owner", "secret", "--evidence", owner / "evidence.json", "--tik", owner / "tik.bin"),
        *("--tek", owner / "tek.bin", "--secret", f"luks:{owner / 's'}", "--header", header, "--payload", payload),
        "--unverified",
    )
    [line] = [line for line in wrapped.stdout.splitlines() if line.startswith("on the host: ")]
    words = ["sevlaunch", "inject", "it's $(id)", "--header", str(header), "--payload", str(payload)]
    assert shlex.split(line.removeprefix("on the host: ")) == words
    written = sevlaunch("init", "--type", "none", owner / "a b" / "x y.yaml")
    assert shlex.split(written.stdout)[-2:] == ["up", str(owner / "a b" / "x y.yaml")]
    pdh = owner / "a b" / "pdh"
    [line] = [
        line
        for line in sevlaunch("host", "--pdh", pdh, "--rehearse", "--format", "text").stdout.splitlines()
        if line.startswith("sevlaunch owner session ")
    ]
    assert shlex.split(line)[3:5] == ["--pdh", str(pdh)]
    sevlaunch("up", PLAIN, "--name", "it's", "--paused", *some_qemu())
    again = sevlaunch("up", PLAIN, "--name", "it's", "--paused", *some_qemu(), check=1)
    assert f"sevlaunch down {shlex.quote(chr(105) + 't' + chr(39) + 's')}" in again.stderr


def test_certificates_with_hostile_names(owner: Path, sevlaunch: Command) -> None:
    # A common name has up to 64 characters.
    evil = "\x1b[2J\u202e\nyes: every check holds"
    waived = ("--any-digest", "--any-policy", "--any-report-data")
    ours = processor(version=3, surname=evil)
    certs = owner / "certs"
    certs.mkdir()
    (certs / "chain.pem").write_bytes(pem(*ours.certificates[1:]))
    (certs / "vcek.der").write_bytes(der(ours.certificates[0]))
    (certs / WORD[:60]).write_text("nothing")
    (owner / "report").write_bytes(ours.signed())
    refused = sevlaunch("owner", "report", owner / "report", "--certs", certs, "--at", "2026-01-01", *waived, check=1)
    assert SHOWN in clean(refused)
    assert refused.stdout.splitlines()[-1] == "no: a check fails"
    (certs / "chain.pem").unlink()
    # What lacks may be in the file that could not be read.
    unread = sevlaunch("owner", "report", owner / "report", "--certs", certs, "--at", "2026-01-01", *waived, check=7)
    assert SHOWN in clean(unread)
    (certs / WORD[:60]).unlink()
    checks = sevlaunch(
        *("owner", "report", owner / "report", "--certs", certs, "--at", "2026-01-01", *waived, "--format", "json"),
        check=1,
    )
    assert evil in next(check["detail"] for check in checks.json["checks"] if check["name"] == "VCEK")
    clean(checks)


def test_lock_files_with_hostile_texts(owner: Path, sevlaunch: Command) -> None:
    lock: dict[str, Any] = {
        "lock": 1,
        "name": EVIL,
        "type": "sev",
        "policy": 0x33,
        "qemu": EVIL,
        "vcpus": 1,
        "cpu": {"model": EVIL, "signature": None},
        "firmware": {"path": EVIL, "sha256": "00" * 32},
        "kernel": None,
        "initrd": None,
        "cmdline": {"text": EVIL, "sha256": "00" * 32},
        "kernel_hashes": True,
        "digests": {"launch": "00" * 32},
    }
    (owner / "one").write_text(json.dumps(lock))
    (owner / "other").write_text(json.dumps({**lock, "cmdline": {"text": "x", "sha256": "11" * 32}, "qemu": "1"}))
    compared = sevlaunch("owner", "compare", owner / "one", owner / "other", check=1)
    assert SHOWN in clean(compared)
    assert "the same launch" not in compared.stdout
    (owner / "evidence.json").write_text(json.dumps(evidence()))
    words = ("owner", "verify", owner / "evidence.json", "--tik", owner / "tik.bin", "--lock", owner / "one")
    assert clean(sevlaunch(*words, check=1)).endswith("guest: NOT verified\n")
    (owner / "one").write_text(json.dumps({**lock, "digests": {EVIL: "00" * 32}, EVIL: 1}))
    clean(sevlaunch(*words, check=2))


def test_profiles_with_hostile_texts(owner: Path, sevlaunch: Command) -> None:
    file = owner / "guest.yaml"
    quoted = json.dumps(WORD)
    for line in (f"{quoted}: 1", f"name: {quoted}", f"memory: {quoted}", f"machine: {quoted}", f"extends: {quoted}"):
        file.write_text(line + "\n")
        for command in (("check",), ("render", "--host", HOSTS / "milan-qemu-10.0.json"), ("up",), ("unit",)):
            result = sevlaunch(command[0], file, *command[1:], check=None)
            assert result.code in (1, 3, 4), (line, command, result)
            # Of a file that is not there the place is told.
            assert SHOWN in clean(result) or line.startswith("extends"), (line, command)
    assert SHOWN in clean(sevlaunch("check", PLAIN, "--set", f"memory={WORD}", check=1))
    digest = ("owner", "digest", "--type", "sev", "--firmware", owner / "ovmf.fd", "--kernel", PLAIN)
    assert SHOWN in clean(sevlaunch(*digest, "--cmdline", WORD))


def test_a_domain_with_hostile_texts(owner: Path, sevlaunch: Command) -> None:
    # XML has no control characters of the first 32 but these three.
    evil = "&#13;&#10;guest: verified&#10;&#x9b;31m&#x7f;\u202e"
    (owner / "d.xml").write_text(
        f"<domain type='kvm'><name>{evil}</name><title>{evil}</title><memory>{evil}</memory>"
        f"<os><type machine='{evil}'>hvm</type></os>"
        f"<devices><disk type='{evil}'/><xxx y='{evil}'/></devices></domain>"
    )
    result = sevlaunch("import", owner / "d.xml", check=None)
    for line in result.stderr.splitlines():
        assert line.isprintable() and line not in LIES
    saved = sevlaunch("import", owner / "d.xml", "-o", owner / "d.yaml", check=None)
    clean(saved)


def test_a_saved_host_with_hostile_texts(owner: Path, sevlaunch: Command) -> None:
    host = json.loads((HOSTS / "milan-qemu-10.0.json").read_text())
    host |= {"hostname": EVIL, "kernel": EVIL, "user": EVIL}
    (owner / "host.json").write_text(json.dumps(host))
    assert SHOWN in clean(sevlaunch("doctor", "--host", owner / "host.json", check=None))


def test_a_guests_folder_with_hostile_texts(sevlaunch: Command) -> None:
    sevlaunch("up", PLAIN, "--paused", *some_qemu())
    folder = sevlaunch.runtime / "plain"
    written = json.loads((folder / "evidence.json").read_text())
    written |= {"profile": EVIL, "command": [EVIL], "qemu": {"binary": EVIL, "version": "10.0.0"}}
    (folder / "evidence.json").write_text(json.dumps({**written, "firmware": {"path": EVIL, "sha256": None}}))
    for command in (("ps",), ("status", "plain"), ("evidence", "plain")):
        shown = sevlaunch(*command, "--format", "json")
        clean(shown)
        [found] = shown.json if command == ("ps",) else [shown.json]
        assert found["profile"] == EVIL
        if command != ("evidence", "plain"):
            assert SHOWN in clean(sevlaunch(*command))
    os.kill(written["pid"], 9)
    with (folder / "qemu.log").open("w") as stream:
        stream.write(f"qemu: {WORD}\n\x1b[2J\x1b[8mfailed")
    wait_until(lambda: sevlaunch("status", "plain", "--format", "json").json["state"] == "exited", 30, "the end")
    assert SHOWN in clean(sevlaunch("status", "plain"))
    logged = sevlaunch("logs", "plain", "--qemu").stdout
    assert logged.startswith("qemu: " + SHOWN) and all(line.isprintable() for line in logged.split("\n"))
