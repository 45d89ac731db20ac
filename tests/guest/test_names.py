"""One name, one guest: races for a name, and names that are hard to quote."""

from __future__ import annotations

import pytest

from tests.conftest import Command
from tests.guest.support import (
    JSON,
    PLAIN,
    finish,
    listed,
    no_traceback,
    nothing_left,
    qemu_processes,
    some_qemu,
    status_of,
    tries,
)


@tries(8, 200)
def test_of_two_starts_of_one_name_exactly_one_wins(count: int, sevlaunch: Command) -> None:
    for _ in range(count):
        both = [sevlaunch.start("up", PLAIN, "--paused", *some_qemu()) for _ in range(2)]
        won, lost = sorted((finish(process) for process in both), key=lambda result: result.code)
        assert (won.code, lost.code) == (0, 1), f"{won}\n{lost}"
        no_traceback(lost)
        assert "is being started or taken down by another" in lost.stderr or "runs already" in lost.stderr
        assert "--name" in lost.stderr
        assert listed(sevlaunch) == {"plain": "paused"}
        assert qemu_processes(sevlaunch) == [status_of(sevlaunch, "plain")["pid"]]
        sevlaunch("down", "plain", "--now")
        nothing_left(sevlaunch)


@tries(4, 150)
def test_starts_and_downs_of_one_name_end_in_one_guest_or_none(count: int, sevlaunch: Command) -> None:
    for _ in range(count):
        sevlaunch("up", PLAIN, "--paused", *some_qemu())
        commands = [("up", PLAIN, "--paused", *some_qemu()), ("down", "plain", "--now"), ("down", "plain")] * 2
        results = [finish(process) for process in [sevlaunch.start(*command) for command in commands]]
        for result in results:
            # 10: another one has taken it down already.
            assert result.code in (0, 1, 10), result
            no_traceback(result)
        # The guest that was there first can be taken down only by one of the commands.
        assert any(result.code == 0 for result in results)
        running = qemu_processes(sevlaunch)
        assert len(running) <= 1
        assert listed(sevlaunch) == ({"plain": "paused"} if running else {})
        if running:
            assert sevlaunch("down", "plain", *JSON).json == [{"name": "plain", "how": "quit"}]
        nothing_left(sevlaunch, (running, results))


def test_four_names_at_once_all_work(sevlaunch: Command) -> None:
    names = ["a", "b", "c", "d"]
    started = [sevlaunch.start("up", PLAIN, "--name", name, *some_qemu()) for name in names]
    results = [finish(process) for process in started]
    assert [result.code for result in results] == [0] * 4, results
    assert listed(sevlaunch) == dict.fromkeys(names, "running")
    assert len(qemu_processes(sevlaunch)) == 4
    sevlaunch("down", "--all", "--now")
    nothing_left(sevlaunch)


def test_a_name_that_runs_is_refused_with_its_pid_and_the_guest_lives_on(sevlaunch: Command) -> None:
    pid = sevlaunch("up", PLAIN, *JSON, *some_qemu()).json["pid"]
    again = sevlaunch("up", PLAIN, *some_qemu(), check=1)
    assert f"a guest 'plain' runs already (pid {pid})" in again.stderr
    assert "sevlaunch down plain" in again.stderr
    assert (listed(sevlaunch), qemu_processes(sevlaunch)) == ({"plain": "running"}, [pid])


@tries(3, 60)
def test_looking_never_disturbs_a_start(count: int, sevlaunch: Command) -> None:
    states: set[str | None] = set()
    for _ in range(count):
        process = sevlaunch.start("up", PLAIN, *some_qemu())
        while process.poll() is None:
            lookers = [sevlaunch.start("ps", *JSON) for _ in range(2)]
            for looker in lookers:
                result = finish(looker)
                assert (result.code, result.stderr) == (0, "")
                states |= {guest["state"] for guest in result.json}
        result = finish(process)
        assert result.code == 0, result
        assert listed(sevlaunch) == {"plain": "running"}
        sevlaunch("down", "plain", "--now")
        nothing_left(sevlaunch)
    assert states <= {"starting", "running", "paused", "exited"}


@pytest.mark.parametrize(
    "name",
    [
        "two words",
        "a,b",
        "a=b,c=d",
        "it's",
        'say "hi"',
        "gäst-客人",
        "back\\slash",
        "$HOME;ls",
        "%s%n",
        "[x]*?",
        "a,,b",
    ],
)
def test_a_name_that_is_hard_to_quote_works_everywhere(name: str, sevlaunch: Command) -> None:
    up = sevlaunch("up", PLAIN, "--paused", "--name", name, *JSON, *some_qemu()).json
    assert up["name"] == name
    assert sevlaunch("qmp", name, "query-name").json == {"name": name}
    assert (sevlaunch.runtime / name / "qemu/qmp.sock").is_socket()
    assert len(list((sevlaunch.state / name).glob("*/VARS.fd"))) == 1
    assert status_of(sevlaunch, name)["state"] == "paused"
    assert listed(sevlaunch) == {name: "paused"}
    assert name in sevlaunch("ps").stdout
    assert sevlaunch("resume", name, *JSON).json["state"] == "running"
    assert sevlaunch("down", name, "--now", *JSON).json == [{"name": name, "how": "quit"}]
    nothing_left(sevlaunch)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc", ".hidden", "-x", "a\nb", "x" * 65, "a\x1b[31m"])
def test_a_name_that_is_no_folder_name_is_refused(name: str, sevlaunch: Command) -> None:
    result = sevlaunch("up", PLAIN, f"--name={name}", *some_qemu(), check=3)
    assert "wanted 1 to 64 bytes of printable text" in result.stderr
    assert "\x1b" not in result.stderr
    nothing_left(sevlaunch)


def test_a_name_that_reads_like_an_option_gives_the_guest_no_vsock(sevlaunch: Command) -> None:
    name = "x guest-cid=7"
    sevlaunch("up", PLAIN, "--name", name, "--paused", *some_qemu())
    refused = sevlaunch("wait", name, "vsock:1024", check=2)
    assert f"{name} has no vsock" in refused.stderr
    sevlaunch("down", name, "--now")
