"""The command logs: the guest's console, QEMU's own output, that of helper programs."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from sevlaunch.cli.guests import GuestArgument
from sevlaunch.cli.output import say
from sevlaunch.cli.streams import is_read
from sevlaunch.errors import SevlaunchError, UsageError
from sevlaunch.plan.places import CONSOLE_LOG

if TYPE_CHECKING:
    from sevlaunch.guest.folder import GuestFolder
    from sevlaunch.guest.safe_files import OpenFolder

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

# Helper programs say what went wrong, and little else.
_HELPER_LINES = 1000


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("logs")(logs)


def logs(
    name: GuestArgument,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the guest ends.")] = False,
    qemu: Annotated[bool, typer.Option("--qemu", help="QEMU's own output instead of the guest's console.")] = False,
    helpers: Annotated[
        bool, typer.Option("--helpers", help="The output of helper programs: passt, virtiofsd, swtpm.")
    ] = False,
    lines: Annotated[
        int | None, typer.Option("-n", "--lines", metavar="N", help="The last N lines alone.", min=0)
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since", metavar="TIME", help="What the console showed since then: 90s, 10m, 2h, 1d ago, or a date."
        ),
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="The bytes as they are: what they do to a terminal is the guest's choice.")
    ] = False,
) -> None:
    """Print the guest's console output, or QEMU's own, with control characters made visible."""
    from sevlaunch.cli.interrupt import run
    from sevlaunch.errors import GuestNotFound
    from sevlaunch.guest.console_log import has_log
    from sevlaunch.guest.folder import QEMU_LOG, GuestFolder, find
    from sevlaunch.guest.life import qemu_pid
    from sevlaunch.host.folders import runtime_folder

    moment = _moment(since) if since else None
    if moment is not None and (qemu or lines is not None):
        raise UsageError("--since is for the console alone, and goes without -n", hint="leave one of them out")
    try:
        folder = find(runtime_folder(), name)
    except GuestNotFound:
        # The console's log outlives the guest.
        folder = GuestFolder(runtime_folder(), name)
        if qemu or helpers or "/" in name or not has_log(folder):
            raise
    if helpers:
        if follow or qemu or raw or lines is not None:
            raise UsageError("--helpers goes with no other option of logs")
        _print_helpers(folder)
        return
    pid = qemu_pid(folder) if follow else None
    log = QEMU_LOG if qemu else CONSOLE_LOG
    with _opened(folder, log, qemu=qemu) as opened:
        begin, end = _places(opened, log, lines, moment)
        run(_copy(opened, log, begin, sys.maxsize if pid else end, pid, raw=raw))


@contextmanager
def _opened(folder: GuestFolder, log: str, *, qemu: bool) -> Iterator[OpenFolder]:
    from sevlaunch.guest.console_log import opened_log_folder

    missing = SevlaunchError(
        f"{folder.name} has no {log}", hint="" if qemu else "its profile says console: none; try --qemu"
    )
    try:
        with folder.opened() if qemu else opened_log_folder(folder) as opened:
            if not opened.has(log):
                raise missing
            yield opened
    except FileNotFoundError as error:
        raise missing from error


def _places(opened: OpenFolder, log: str, lines: int | None, moment: float | None) -> tuple[int, int]:
    """Where what is asked for begins, and where the log ends in this moment."""
    from sevlaunch.guest.log_places import beginning, first_place, last_lines, since

    fd = opened.open_file(log)
    try:
        end = os.fstat(fd).st_size
        if moment is not None:
            return since(opened, fd, moment), end
        first = first_place(opened) if log == CONSOLE_LOG else 0
        return (beginning(fd, first) if lines is None else last_lines(fd, lines, end, first)), end
    finally:
        os.close(fd)


async def _copy(opened: OpenFolder, log: str, begin: int, end: int, pid: int | None, *, raw: bool) -> None:
    from sevlaunch.guest.process import Process
    from sevlaunch.guest.watch import follow
    from sevlaunch.text import VisibleStream

    process = Process.attach(pid) if pid else None
    shown = VisibleStream()
    async for piece in follow(opened, log, process, begin, end):
        sys.stdout.buffer.write(piece) if raw else print(shown.feed(piece), end="")
        sys.stdout.flush()
        if not is_read():
            return
    if not raw:
        print(shown.feed(b"", final=True), end="")


def _moment(text: str) -> float:
    """The moment that ``text`` says, in seconds since 1970.

    :raise UsageError: when it says none.
    """
    ago = re.fullmatch(r"(\d{1,9})([smhd])", text)
    if ago:
        return time.time() - int(ago[1]) * _SECONDS[ago[2]]
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"wanted a time such as 90s, 10m, 2h, 1d or 2026-01-31T12:00, found {text!r}", hint="--since 10m"
        ) from error


def _print_helpers(folder: GuestFolder) -> None:
    from sevlaunch.guest.helpers import REHEARSAL, log_of

    record = folder.record()
    names = [one.name for one in record.companions if one.name != REHEARSAL] if record else []
    said = {name: folder.log_tail(log_of(name), lines=_HELPER_LINES) for name in names}
    # The one that keeps the console's log is none that a profile asks for, and says nothing where all is well.
    if not any(lines or name != CONSOLE_LOG for name, lines in said.items()):
        raise SevlaunchError(f"{folder.name} has no helper programs", hint="QEMU's own output: --qemu")
    for name, lines in said.items():
        for line in lines:
            say(f"{name}: {line}")
