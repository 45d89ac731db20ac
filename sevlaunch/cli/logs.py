"""The command logs: the guest's console, QEMU's own output, that of helper programs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from sevlaunch.cli.guests import GuestArgument
from sevlaunch.cli.output import say
from sevlaunch.errors import SevlaunchError, UsageError

if TYPE_CHECKING:
    from sevlaunch.guest.folder import GuestFolder

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
    raw: Annotated[
        bool, typer.Option("--raw", help="The bytes as they are: what they do to a terminal is the guest's choice.")
    ] = False,
) -> None:
    """Print the guest's console output, or QEMU's own, with control characters made visible."""
    from sevlaunch.cli.interrupt import run
    from sevlaunch.guest.folder import QEMU_LOG, find
    from sevlaunch.guest.life import qemu_pid
    from sevlaunch.guest.process import Process
    from sevlaunch.guest.watch import follow as read_on
    from sevlaunch.host.folders import runtime_folder
    from sevlaunch.plan.places import CONSOLE_LOG
    from sevlaunch.text import VisibleStream

    folder = find(runtime_folder(), name)
    if helpers:
        if follow or qemu or raw:
            raise UsageError("--helpers goes with no other option of logs")
        _print_helpers(folder)
        return
    log = QEMU_LOG if qemu else CONSOLE_LOG
    pid = qemu_pid(folder) if follow else None

    async def copy() -> None:
        process = Process.attach(pid) if pid else None
        shown = VisibleStream()
        with folder.opened() if qemu else folder.qemu_folder() as opened:
            if not opened.has(log):
                hint = "" if qemu else "its profile says console: none; try --qemu"
                raise SevlaunchError(f"{name} has no {log}", hint=hint)
            async for piece in read_on(opened, log, process):
                sys.stdout.buffer.write(piece) if raw else print(shown.feed(piece), end="")
                sys.stdout.flush()
        if not raw:
            print(shown.feed(b"", final=True), end="")

    run(copy())


def _print_helpers(folder: GuestFolder) -> None:
    from sevlaunch.guest.helpers import REHEARSAL, log_of

    record = folder.record()
    names = [one.name for one in record.companions if one.name != REHEARSAL] if record else []
    if not names:
        raise SevlaunchError(f"{folder.name} has no helper programs", hint="QEMU's own output: --qemu")
    for helper in names:
        for line in folder.log_tail(log_of(helper), lines=_HELPER_LINES):
            say(f"{helper}: {line}")
