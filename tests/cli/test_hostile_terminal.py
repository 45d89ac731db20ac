"""What a terminal is sent of what others wrote."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.cli.hostile import SHOWN, WORD, clean
from tests.conftest import HOSTS, Command
from tests.guest.support import PLAIN, fake_qemu, some_qemu
from tests.terminal import on_a_terminal


def test_logs_give_the_bytes_as_they_are_only_when_asked(sevlaunch: Command) -> None:
    sevlaunch("up", PLAIN, "--paused", *some_qemu())
    content = f"login: \x1b[32mgreen\x1b[0m{WORD}\r\n".encode() + b"\xff\xfe"
    sevlaunch.console_logs("plain")[0].write_bytes(content)
    shown = sevlaunch("logs", "plain")
    assert shown.stdout.startswith("login: green" + SHOWN)
    assert shown.stdout.endswith("\\xff\\xfe")
    for line in shown.stdout.split("\n"):
        assert line.replace("\t", "").isprintable()
    raw = subprocess.run(
        sevlaunch.argv("logs", "plain", "--raw"), env=sevlaunch.environment, capture_output=True, check=True
    )
    assert raw.stdout == content


def test_what_qemu_answers_and_says(sevlaunch: Command) -> None:
    sevlaunch("up", PLAIN, "--paused", *some_qemu())
    refused = sevlaunch("qmp", "plain", "device_del", json.dumps({"id": WORD}), "--format", "text", check=5)
    assert SHOWN in clean(refused)
    sevlaunch("qmp", "plain", "object-add", json.dumps({"qom-type": "secret", "id": "s", "data": WORD}))
    clean(sevlaunch("qmp", "plain", "qom-get", '{"path": "/objects/s", "property": "data"}', check=None))
    words = ("up", PLAIN, "--name", "other", *some_qemu(), "--set", f"qemu.extra_args={json.dumps(['-x' + WORD])}")
    assert SHOWN in clean(sevlaunch(*words, check=None))
    clean(sevlaunch("up", PLAIN, "--name", "third", *fake_qemu(sevlaunch, "garbage"), check=5))


@pytest.mark.parametrize(
    "words",
    [
        (WORD,),
        ("ps", f"--{WORD}"),
        ("ps", "--format", WORD),
        ("up", PLAIN, "--count", WORD),
        ("status", WORD),
        ("logs", WORD),
        ("down", WORD, "x"),
        ("qmp", WORD, "stop"),
        ("policy", WORD),
        ("owner", WORD),
        ("owner", "digest", "--type", WORD),
        ("up", PLAIN, "--wait", WORD),
        ("up", PLAIN, "--name", WORD),
        ("owner", "id-block", "--digest", WORD, "--policy", "0x30000", "--id-key", "x"),
    ],
)
def test_what_is_typed_comes_back_visible(words: tuple[str | Path, ...], sevlaunch: Command) -> None:
    result = sevlaunch(*words, check=None)
    assert result.code in (2, 3, 10)
    assert SHOWN in clean(result)
    clean(sevlaunch(*words, "--format", "json", check=None))


def test_a_terminal_gets_no_control_character_of_a_script(owner: Path, sevlaunch: Command) -> None:
    file = owner / "guest.yaml"
    file.write_text(f"security: none\ndisks: [{{path: {json.dumps('/srv/' + WORD)}, format: raw}}]\n")
    words = ("render", file, "--host", HOSTS / "milan-qemu-10.0.json")
    # For a shell, in a pipe, the path is what it is.
    assert "\x1b[2J" in sevlaunch(*words).stdout
    for output in ("shell", "lines", "explain", "json"):
        shown = on_a_terminal(sevlaunch, *words, "--format", output, stream="stdout")
        assert "[2J" in shown
        for line in shown.split("\n"):
            assert line.replace("\t", "").isprintable(), repr(line)
