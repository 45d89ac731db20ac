"""The start of the process that keeps a guest's logs within their bounds: :mod:`sevlaunch.guest.keeper`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from sevlaunch.guest.console_log import ConsoleLog
from sevlaunch.guest.folder import GuestFolder
from sevlaunch.guest.process import Process, spawn

_KEEPER = Path(__file__).with_name("keeper.py")
# Bytes of what QEMU and the helper programs say that are kept: it is in the runtime folder, which is memory.
OUTPUT_BOUND = 1 << 20


def start_keeper(
    folder: GuestFolder, qemu: Process, console: ConsoleLog | None, names: Sequence[str], output: int
) -> Process:
    """Start the process that keeps the logs of a guest.

    :param folder: the guest's, by which the process is known, too.
    :param console: its console's log.
    :param names: the logs in the folder.
    :param output: a descriptor for what the process prints.
    """
    with ExitStack() as opened_files, folder.opened() as opened:
        logs = [(console.log, console.times, console.bound)] if console else []
        for name in names:
            log = opened.open_file(name, os.O_RDWR)
            opened_files.callback(os.close, log)
            logs.append((log, -1, OUTPUT_BOUND))
        passed = [qemu.pidfd, *(fd for log in logs for fd in log[:2] if fd >= 0)]
        journal = folder.name if console and console.journal else ""
        words = [f"{folder.path}/", str(qemu.pidfd), journal, *(",".join(map(str, log)) for log in logs)]
        return spawn([sys.executable, "-IS", str(_KEEPER), *words], log=output, inherit=passed)
