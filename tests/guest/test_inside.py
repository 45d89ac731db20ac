"""exec, wait, events, pause: work in a guest that runs, with a real guest agent and a real QEMU."""

from __future__ import annotations

import hashlib
import json
import select
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from sevlaunch import sync
from sevlaunch.errors import QmpError
from sevlaunch.guest.agent_programs import run_program
from tests import needs
from tests.conftest import Command, wait_until
from tests.guest.support import JSON, PLAIN, finish, nothing_left, some_qemu
from tests.guest.test_agent import answering

AGENT = ("--set", "guest_agent=true")


@pytest.fixture
def guest(sevlaunch: Command) -> Iterator[Command]:
    """A guest with a channel for an agent, at the other end of which a real one listens as it would in a guest."""
    program = needs.guest_agent()
    sevlaunch("up", PLAIN, "--paused", *AGENT, *some_qemu())
    socket = sevlaunch.runtime / "plain/qemu/agent.sock"
    socket.unlink()
    state = sevlaunch.base / "agent"
    state.mkdir()
    command = [str(program), "-m", "unix-listen", "-p", str(socket), "-t", str(state), "-f", str(state / "pid")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as agent:
        try:
            wait_until(socket.exists, 30, "the agent's socket")
            yield sevlaunch
        finally:
            agent.terminate()
    sevlaunch("down", "plain", "--now")
    nothing_left(sevlaunch)


def test_a_programs_output_and_exit_code_are_passed_on(guest: Command) -> None:
    done = guest("exec", "plain", "--", "/bin/sh", "-c", "echo out; echo err >&2; exit 7", check=7)
    assert done.stdout == "out\n"
    assert done.stderr == "err\n"
    # The program's options are its own, and it runs in no shell.
    assert guest("exec", "plain", "/bin/echo", "-n", "$HOME", "--raw").stdout == "$HOME --raw"
    assert guest("exec", *JSON, "plain", "/bin/sh", "-c", "printf '\\377\\033'; exit 3", check=3).json == {
        "exit_code": 3,
        "signal": None,
        "stdout": "\\xff\x1b",
        "stderr": "",
        "truncated": False,
    }


def test_a_program_gets_its_input(guest: Command) -> None:
    given = b"x" * 100_000
    words = guest.argv("exec", "-i", "plain", "/usr/bin/sha256sum")
    done = subprocess.run(words, input=given, env=guest.environment, capture_output=True, check=True)
    assert done.stdout.split()[0].decode() == hashlib.sha256(given).hexdigest()


def test_a_program_that_a_signal_ends_is_what_a_shell_says(guest: Command) -> None:
    guest("exec", "plain", "/bin/sh", "-c", "kill -9 $$", check=128 + signal.SIGKILL)


def test_more_output_than_the_agent_keeps_is_said_to_be_lost(guest: Command) -> None:
    done = guest("exec", "plain", "/bin/sh", "-c", "head -c 17000000 /dev/zero | tr '\\0' x")
    assert len(done.stdout) == 16 << 20
    assert "16 MiB" in done.stderr


def test_a_program_that_is_not_there_is_told(guest: Command) -> None:
    assert "refused guest-exec" in guest("exec", "plain", "/no/such/program", check=5).stderr


def test_a_program_that_takes_too_long_is_left(guest: Command) -> None:
    stop = guest.base / "stop"
    loop = f"until test -e {stop}; do sleep 0.1; done"
    told = guest("exec", "--timeout", "1", "plain", "/bin/sh", "-c", loop, check=6)
    assert "had not ended after 1 s" in told.stderr
    stop.touch()
    # The next one is not confused by what the last left on the line.
    assert guest("exec", "plain", "/bin/echo", "next").stdout == "next\n"


@pytest.mark.parametrize(
    "answer",
    [
        b'\xff{"return": NUMBER}\n{"return": []}\n',
        b'\xff{"return": NUMBER}\n{"return": {"pid": "x"}}\n',
        b'\xff{"return": NUMBER}\n{"return": {"pid": 1}}\n{"return": {"exited": true, "out-data": "*"}}\n',
        b"\xff[]\n",
        b"x" * 100_000,
    ],
)
async def test_an_odd_answer_is_the_agents_fault(answer: bytes, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secrets.randbelow", lambda _: 5)
    async with answering(base, answer.replace(b"NUMBER", b"5")) as agent:
        with pytest.raises(QmpError, match="the guest agent"):
            await run_program(agent, ["x"])


async def test_answers_to_others_are_passed_over(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secrets.randbelow", lambda _: 5)
    old = b'{"return": {"exited": true}}\n' + b"x" * 100_000 + b'\xff{"return": 4}\n'
    rest = (
        b'\xff{"return": 5}\n{"return": {"pid": 1}}\n{"return": {"exited": true, "exitcode": 2, "out-data": "YQ=="}}\n'
    )
    async with answering(base, old + rest) as agent:
        end = await run_program(agent, ["x"])
    assert (end.exit_code, end.stdout) == (2, b"a")


def test_without_a_channel_or_a_guest_exec_says_so(sevlaunch: Command) -> None:
    sevlaunch("up", PLAIN, "--paused", *some_qemu())
    assert "guest_agent: true" in sevlaunch("exec", "plain", "true", check=2).stderr
    sevlaunch("down", "plain", "--now")
    sevlaunch("exec", "plain", "true", check=10)


def test_nobody_listens_in_the_guest(sevlaunch: Command) -> None:
    sevlaunch("up", PLAIN, "--paused", *AGENT, *some_qemu())
    assert "does an agent run" in sevlaunch("exec", "--timeout", "0.5", "plain", "true", check=6).stderr
    waited = sevlaunch("wait", "plain", "qga", "--timeout", "0.5", check=6)
    assert "was not ready within 0.5 s" in waited.stderr
    sevlaunch("down", "plain", "--now")


def waits_for_a_process(pid: int) -> bool:
    """Whether a process has a descriptor of another one, which tells it of its end."""
    names = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            names.append(str(link.readlink()))
    return "anon_inode:[pidfd]" in names


def test_waiting_for_the_console_and_for_the_end(demo: Path, sevlaunch: Command) -> None:
    sevlaunch("up", demo, *some_qemu())
    told = sevlaunch("wait", "demo", "console:demo: ready", "--timeout", "300", limit=330)
    assert told.stdout == "demo: ready\n"
    ended = sevlaunch.start("wait", "demo", "end", "--timeout", "300", *JSON)
    wait_until(lambda: waits_for_a_process(ended.pid), 30, "the command to wait for QEMU's end")
    sevlaunch("down", "demo", "--now")
    assert json.loads(finish(ended).stdout) == {"name": "demo", "reached": ["end"]}
    sevlaunch("wait", "demo", "end", check=10)


def test_a_guest_that_runs_on_and_a_wrong_condition(sevlaunch: Command) -> None:
    sevlaunch("up", PLAIN, "--paused", *some_qemu())
    assert "still runs after 0.2 s" in sevlaunch("wait", "plain", "end", "--timeout", "0.2", check=6).stderr
    sevlaunch("wait", "plain", "end", "qga", check=2)
    sevlaunch("wait", "plain", "nonsense", check=2)
    sevlaunch("down", "plain", "--now")


def until_it_prints(command: Command, follower: subprocess.Popen[str]) -> None:
    """Stop the guest and let it run, again and again, until somebody who follows its events has seen one."""

    assert follower.stdout
    output = follower.stdout.fileno()

    def seen() -> bool:
        command("pause", "plain")
        command("resume", "plain")
        return bool(select.select([output], [], [], 0)[0])

    wait_until(seen, 60, "the first event")


def test_events_are_printed_as_they_come(sevlaunch: Command) -> None:
    sevlaunch("up", PLAIN, *some_qemu())
    follower = sevlaunch.start("events", "plain")
    until_it_prints(sevlaunch, follower)
    assert sevlaunch("pause", "plain", *JSON).json["state"] == "paused"
    sevlaunch("down", "plain", "--now")
    events = [line.split()[1:] for line in finish(follower).stdout.splitlines()]
    assert events[0] in (["STOP"], ["RESUME"])
    assert ["STOP"] in events
    assert events[-1] == ["SHUTDOWN", "guest=False", "reason=host-qmp-quit"]
    nothing_left(sevlaunch)


def test_events_for_programs_are_one_object_a_line(sevlaunch: Command) -> None:
    sevlaunch("up", PLAIN, *some_qemu())
    follower = sevlaunch.start("events", "plain", *JSON)
    until_it_prints(sevlaunch, follower)
    sevlaunch("down", "plain", "--now")
    events = [json.loads(line) for line in finish(follower).stdout.splitlines()]
    assert events[0]["event"] in ("STOP", "RESUME")
    assert events[-1]["event"] == "SHUTDOWN"
    assert events[-1]["data"]["reason"] == "host-qmp-quit"


def test_programs_have_the_same(guest: Command) -> None:
    end = sync.run_in_guest("plain", ["/bin/echo", "hello"], root=guest.runtime, limit=60)
    assert (end.exit_code, end.stdout, end.truncated) == (0, b"hello\n", False)
    sync.wait_for("plain", [sync.parse_condition("qga")], root=guest.runtime)
