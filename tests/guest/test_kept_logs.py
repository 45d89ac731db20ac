"""What QEMU and the helper programs say has a bound, too; and so have logs on a file system that has no holes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sevlaunch.guest.keeper import MOMENT, Keeper
from sevlaunch.guest.log_keeping import OUTPUT_BOUND
from sevlaunch.guest.safe_files import OpenFolder
from sevlaunch.guest.watch import follow
from tests.conftest import Command, qemu_binary_of, wait_until
from tests.guest.support import PLAIN, mounted, some_qemu
from tests.guest.test_console_and_logs import BOUND, SLACK, keeper_of, memory_of
from tests.guest.test_helpers import PASST, WITH_PASST, fake_passt
from tests.guest.tiny_firmware import FLOODS, options_for


def check_flood(command: Command, log: Path) -> None:
    """A log in the guest's folder stays within its bound while it outgrows it, and its keeper stays small."""
    memory = memory_of(keeper_of(command))
    for times in (4, 8, 12):
        wait_until(lambda: log.stat().st_size > times * OUTPUT_BOUND, 120, "a flood")  # noqa: B023 - called at once
        # Between two looks of the keeper, which a busy machine makes late, a flood is beyond its bound.
        wait_until(lambda: log.stat().st_blocks * 512 < OUTPUT_BOUND + SLACK, 30, "the bound")
    assert memory_of(keeper_of(command)) - memory < 1 << 20


def test_what_a_guest_makes_qemu_say_has_a_bound(qemu_binary: str, sevlaunch: Command) -> None:
    # A line for each piece of code that the guest executes.
    sevlaunch("up", PLAIN, *options_for(sevlaunch.base, qemu_binary, FLOODS, "-d", '"exec,nochain"'))
    check_flood(sevlaunch, sevlaunch.runtime / "plain/qemu.log")
    last = sevlaunch("logs", "plain", "--qemu", "-n", "3").stdout.splitlines()
    assert len(last) == 3
    assert all("Trace" in line for line in last[:-1])
    kept = sevlaunch("logs", "plain", "--qemu").stdout
    assert "\0" not in kept and "\\x00" not in kept
    sevlaunch("down", "plain", "--now")
    assert sevlaunch.left_behind() == []


def test_what_a_helper_says_has_a_bound(sevlaunch: Command) -> None:
    sevlaunch.environment["PATH"] = fake_passt(sevlaunch.base, fails=False)
    passt = sevlaunch.base / "programs/passt"
    floods = 'while True:\n    print("passt: no such flow" * 9, file=sys.stderr, flush=True)\n'
    passt.write_text(PASST.replace("FAILS", "False").replace("signal.pause()\n", floods))
    # A guest without a console has its logs kept, too.
    sevlaunch("up", PLAIN, *WITH_PASST, "--set", "console=none", *some_qemu())
    check_flood(sevlaunch, sevlaunch.runtime / "plain/passt0.log")
    assert "passt0: passt: no such flow" in sevlaunch("logs", "plain", "--helpers").stdout
    sevlaunch("down", "plain", "--now")
    assert sevlaunch.left_behind() == []


async def test_what_is_cut_off_while_it_is_read_is_not_read_as_zeros(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"old\n" * 8192 + b"new\n" * 8192)
    real = os.pread

    def late(fd: int, size: int, place: int) -> bytes:
        # The keeper cuts the old lines off just before they are read.
        subprocess.run(["fallocate", "--punch-hole", "--length", "32768", log], check=True)
        return real(fd, size, place)

    monkeypatch.setattr(os, "pread", late)
    fd = os.open(tmp_path, os.O_RDONLY)
    with OpenFolder(fd, tmp_path, os.geteuid()) as opened:
        found = b"".join([piece async for piece in follow(opened, "log", None)])
    assert found == b"new\n" * 8192


@pytest.fixture
def without_holes(sevlaunch: Command) -> Iterator[Command]:
    """The state folder on a file system that neither makes holes in files nor tells where some are."""
    folder = sevlaunch.base / "state"
    folder.mkdir()
    with mounted(folder, "", "ramfs"):
        yield sevlaunch


def data_of(log: Path) -> int:
    """How many bytes of a log are something."""
    with log.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        # A flood's lines have no zeros; reading all of it back would take longer than it lasts.
        begin = max(0, size - 2 * (BOUND + SLACK))
        stream.seek(begin)
        return len(stream.read(size - begin).lstrip(b"\0"))


def test_a_console_that_floods_has_a_bound_without_holes(without_holes: Command) -> None:
    options = options_for(without_holes.base, qemu_binary_of("10.0"), FLOODS)
    without_holes("up", PLAIN, "--set", f"console_log={BOUND}", *options)
    [log] = without_holes.console_logs("plain")
    for times in (4, 8, 12):
        wait_until(lambda: log.stat().st_size > times * BOUND, 120, "a flood")  # noqa: B023 - called at once
        assert data_of(log) < BOUND + SLACK
    assert len(without_holes("logs", "plain", "-n", "3").stdout.split()) == 3
    without_holes("down", "plain", "--now")
    assert without_holes.left_behind() == []
    kept = without_holes("logs", "plain").stdout
    assert len(kept) < BOUND + SLACK
    lines = kept.splitlines()
    # What a guest writes while the end is copied may be lost: the order stays.
    numbers = [int(line, 16) for line in lines if len(line) == 8]
    assert len(numbers) > len(lines) - 20
    assert numbers == sorted(numbers)
    assert without_holes("logs", "plain", "--since", "1h").stdout == kept


def test_a_log_without_holes_goes_on_where_it_was_cut_off(without_holes: Command) -> None:
    def lines(first: int, end: int) -> bytes:
        return b"".join(b"%08d\n" % number for number in range(first, end))

    folder = without_holes.base / "state"
    mode = os.O_RDWR | os.O_CREAT
    appended, times = os.open(folder / "qemu.log", mode | os.O_APPEND), os.open(folder / "times", mode)
    other = os.open(folder / "console.log", mode)
    keepers = [Keeper(appended, -1, 1 << 14), Keeper(other, times, 1 << 14)]
    kept = 0
    for first in range(0, 20000, 1000):
        for log in (appended, other):
            os.write(log, lines(first, first + 1000))
        for keeper in keepers:
            keeper.look()
        text = (folder / "qemu.log").read_bytes()
        assert lines(0, first + 1000).endswith(text)
        text = (folder / "console.log").read_bytes()
        assert len(text) == 9 * (first + 1000)
        assert lines(0, first + 1000).endswith(text.lstrip(b"\0"))
        kept = len(text.lstrip(b"\0"))
        assert len(lines(0, 1000)) <= kept <= 1 << 14
    assert kept == (folder / "qemu.log").stat().st_size
    assert MOMENT.unpack((folder / "times").read_bytes()[: MOMENT.size])[1] == 9 * 20000 - kept
