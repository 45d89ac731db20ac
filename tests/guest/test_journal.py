"""The lines of a console on their way to systemd's journal, which may be slow, or away; a real one: test_systemd.py."""

from __future__ import annotations

import os
import re
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from sevlaunch.doctor.preflight import look_at
from sevlaunch.guest import journal
from sevlaunch.guest.journal import Journal
from sevlaunch.host.model import Host
from sevlaunch.plan import console
from sevlaunch.plan.places import JOURNAL_SOCKET
from sevlaunch.plan.resolve import resolve
from sevlaunch.plan.unit import Service, systemd_unit
from sevlaunch.profile.loader import loads
from tests.conftest import HOSTS, Command, wait_until

ENTRY = re.compile(
    rb"PRIORITY=6\nSYSLOG_IDENTIFIER=sevlaunch-web\nSEVLAUNCH_GUEST=web\nMESSAGE\n(.{8})(.*)\n", re.DOTALL
)
Passing = tuple[Journal, Callable[[bytes], None]]


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the journal is to be."""
    monkeypatch.setattr(journal, "JOURNAL_SOCKET", str(tmp_path / "socket"))
    return str(tmp_path / "socket")


@pytest.fixture
def passing(tmp_path: Path) -> Iterator[Passing]:
    """What passes a log on, and what adds to the log."""
    log = os.open(tmp_path / "log", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    with closing(Journal("web", log)) as lines:
        yield lines, lambda text: [os.write(log, text)].clear()
    os.close(log)


def listening(address: str) -> socket.socket:
    """A journal that nobody reads from."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(address)
    listener.setblocking(False)
    return listener


def entries(listener: socket.socket) -> Iterator[str]:
    """What has arrived."""
    while True:
        try:
            entry = ENTRY.fullmatch(listener.recv(1 << 20))
        except BlockingIOError:
            return
        assert entry
        assert struct.unpack("<Q", entry[1]) == (len(entry[2]),)
        yield entry[2].decode()


def pass_all_on(lines: Journal, begin: int = 0) -> None:
    """Pass on what is there, in as many turns as it takes."""
    wait_until(lambda: lines.pass_on(begin), what="the last turn")


def test_lines_arrive_whole_and_in_order_and_can_be_read(address: str, passing: Passing) -> None:
    lines, add = passing
    with closing(listening(address)) as listener:
        add(b"one\r\ntw")
        pass_all_on(lines)
        assert list(entries(listener)) == ["one"]
        add("o\n\nMESSAGE=\x1b]0;x\x07ä\n".encode())
        pass_all_on(lines)
        assert list(entries(listener)) == ["two", r"MESSAGE=\x1b]0;x\x07ä"]
        add(b"x" * 100000)
        pass_all_on(lines)
        add(b"end")
        lines.finish(0)
        assert "".join(entries(listener)) == "x" * 100000 + "end"


def test_a_slow_journal_is_not_waited_for_and_nothing_gets_lost(address: str, passing: Passing) -> None:
    lines, add = passing
    found: list[str] = []
    with closing(listening(address)) as listener:
        add(b"".join(b"%d\n" % number for number in range(20000)))
        while not lines.pass_on(0):
            found.extend(entries(listener))
        found.extend(entries(listener))
    assert found == [str(number) for number in range(20000)]


def test_what_was_taken_out_of_the_log_meanwhile_is_said(address: str, passing: Passing) -> None:
    lines, add = passing
    add(b"lost\n" * 100)
    with closing(listening(address)) as listener:
        pass_all_on(lines, 495)
        assert list(entries(listener)) == ["sevlaunch: 495 bytes of the console came too fast for the journal", "lost"]


def test_a_journal_that_is_away_gets_the_lines_later(
    address: str, passing: Passing, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines, add = passing
    add(b"one\n")
    assert not lines.pass_on(0)
    with closing(listening(address)) as listener:
        pass_all_on(lines)
        assert list(entries(listener)) == ["one"]
    add(b"two\n")
    monkeypatch.setattr(journal, "_LAST_CHANCE", 0.1)
    # It ends, although nobody takes them.
    lines.finish(0)


def test_a_host_without_a_journal_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = str(tmp_path / "socket")
    monkeypatch.setattr(console, "JOURNAL_SOCKET", missing)
    plan = resolve(loads("name: g\nconsole_journal: true\n"), Host.load(HOSTS / "milan-qemu-10.0.json"))
    [problem] = [look.problem for look in look_at(plan) if getattr(look.need, "path", "") == missing]
    assert problem and problem.message == f"socket {missing}: missing"
    assert problem.hint == "start systemd-journald, or leave console_journal out"


def test_a_unit_has_rules_for_devices_alone() -> None:
    plan = resolve(loads("name: g\nconsole_journal: true\n"), Host.load(HOSTS / "milan-qemu-10.0.json"))
    assert plan.console and plan.console.needs.devices
    assert JOURNAL_SOCKET not in systemd_unit(plan, Service(("sevlaunch",), ("/p.yaml",), False))


def test_a_strangers_profile_shows_that_it_writes_there(sevlaunch: Command) -> None:
    profile = sevlaunch.base / "g.yaml"
    profile.write_text("console_journal: true\n")
    assert "console_journal: connects systemd's journal" in sevlaunch("check", profile, "--untrusted").stdout
