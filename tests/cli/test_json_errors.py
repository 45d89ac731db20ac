"""With ``--format json``, all that a command prints is JSON: wrong usage, failures of several, and our own mistakes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Command, wait_until
from tests.guest.support import JSON, PLAIN, finish, listed, some_qemu


def documents(text: str) -> list[Any]:
    """The JSON documents behind each other in ``text``, which has nothing else."""
    found, rest = [], text.lstrip()
    while rest:
        document, end = json.JSONDecoder().raw_decode(rest)
        found.append(document)
        rest = rest[end:].lstrip()
    return found


@pytest.mark.parametrize("form", [("--format", "json"), ("--format=json",)])
@pytest.mark.parametrize(
    "words",
    [
        ("nonsense",),
        ("ps", "--nonsense"),
        ("ps", "surplus"),
        ("up",),
        ("up", PLAIN, "--count", "many"),
        ("up", PLAIN, "--count", "0"),
        ("status",),
        ("logs", "x"),
        ("owner",),
        ("owner", "nonsense"),
        ("owner", "verify"),
        ("owner", "digest", "--type", "tdx"),
        ("render",),
        ("policy", "no-such-bit"),
    ],
)
def test_wrong_usage_is_json(words: tuple[str | Path, ...], form: tuple[str, ...], sevlaunch: Command) -> None:
    result = sevlaunch(*words, *form, check=2)
    assert result.stdout == ""
    [document] = documents(result.stderr)
    error = document["error"]
    assert (error["kind"], error["exit_code"], error["problems"]) == ("UsageError", 2, [])
    assert error["message"]
    text = sevlaunch(*words, check=None)
    assert text.code in (2, 10)
    assert not text.stderr.startswith("{")


def test_what_is_behind_two_dashes_is_no_option_of_ours(sevlaunch: Command) -> None:
    assert sevlaunch("policy", "--", "--format=json", check=2).stderr.startswith("sevlaunch: ")


def test_all_guests_that_could_not_be_taken_down_are_told(sevlaunch: Command) -> None:
    sevlaunch("up", PLAIN, "--name", "there", "--paused", *some_qemu())
    result = sevlaunch("down", "one", "there", "two", *JSON, check=10)
    assert result.json == [{"name": "there", "how": "quit"}]
    [document] = documents(result.stderr)
    assert [error["kind"] for error in document["errors"]] == ["GuestNotFound"] * 2
    assert document["error"] == document["errors"][0]
    assert "no guest 'one' is known" in document["error"]["message"]
    text = sevlaunch("down", "one", "two", check=10)
    told = [line for line in text.stderr.splitlines() if line.startswith("sevlaunch: ")]
    assert [line.partition(" is known")[0] for line in told] == [
        "sevlaunch: no guest 'one'",
        "sevlaunch: no guest 'two'",
    ]


def test_all_guests_that_did_not_start_are_told(sevlaunch: Command) -> None:
    sevlaunch("up", PLAIN, "--name", "taken-1", "--paused", *some_qemu())
    sevlaunch("up", PLAIN, "--name", "taken-3", "--paused", *some_qemu())
    words = ("up", PLAIN, "--name", "taken", "--count", "3", "--paused", *some_qemu())
    result = sevlaunch(*words, *JSON, check=1)
    assert [guest["state"] for guest in result.json] == ["failed", "paused", "failed"]
    [document] = documents(result.stderr)
    assert [error["kind"] for error in document["errors"]] == ["NameTaken"] * 2
    text = sevlaunch(*words, check=1)
    assert "'taken-1' runs already" in text.stderr and "'taken-3' runs already" in text.stderr


def test_notes_are_json_too(sevlaunch: Command) -> None:
    pdh = sevlaunch.base / "pdh"
    result = sevlaunch("host", "--pdh", pdh, "--rehearse", *JSON)
    assert result.json["rehearsal"] is True
    assert documents(result.stderr) == [{"note": "REHEARSAL: these are the certificates of the emulated processor"}]


def test_an_interruption_is_json(sevlaunch: Command) -> None:
    process = sevlaunch.start("up", PLAIN, "--foreground", *JSON, *some_qemu())
    wait_until(lambda: listed(sevlaunch).get("plain") == "running", 30, "the guest")
    process.send_signal(signal.SIGINT)
    # The first one takes the guest down.
    assert process.stderr and json.loads(process.stderr.readline()) == {"note": "plain is taken down"}
    process.send_signal(signal.SIGINT)
    result = finish(process)
    assert result.code == 130
    assert documents(result.stderr)[-1]["error"]["kind"] == "Interrupted"
    assert result.json["name"] == "plain"


def test_a_refused_profile_is_json(sevlaunch: Command) -> None:
    file = sevlaunch.base / "x.yaml"
    file.write_text("memroy: 1G\n")
    for words in (("up", file), ("render", file), ("unit", file)):
        [document] = documents(sevlaunch(*words, *JSON, check=3).stderr)
        assert document["error"]["kind"] == "ProfileError"
        assert "did you mean 'memory'?" in document["error"]["problems"][0]["message"]


BROKEN = """
import sys
from sevlaunch.cli import profiles
def broken(*arguments, **options):
    raise TypeError("two\\nlines \\x1b[2J")
import sevlaunch.profile.schema
sevlaunch.profile.schema.profile_schema = broken
from sevlaunch.cli.main import main
sys.argv = ["sevlaunch", "schema", *sys.argv[1:]]
main()
"""


@pytest.mark.parametrize("output", ["json", "text"])
def test_our_own_mistakes_are_told_in_the_same_form(output: str, sevlaunch: Command) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BROKEN, "--format", output],
        env=sevlaunch.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    if output == "json":
        [document] = documents(done.stderr)
        assert document["error"]["kind"] == "InternalError"
        assert document["error"]["message"] == "TypeError: two\nlines \x1b[2J"
        assert "--debug" in document["error"]["hint"]
    else:
        assert done.stderr.splitlines()[0] == r"sevlaunch: internal error: TypeError: two\nlines \x1b[2J"
