"""Taking guests down: the power button, then QMP quit, then SIGTERM, then SIGKILL."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from sevlaunch.errors import QemuError, SevlaunchError
from sevlaunch.guest.claims import hold_launcher
from sevlaunch.guest.ending import POWERDOWN_LIMIT, QUIT_LIMIT, asking, end_guest
from sevlaunch.guest.folder import LOCK, find
from sevlaunch.guest.life import companions, is_locked, qemu_pid
from sevlaunch.guest.locks import REMOVING
from sevlaunch.guest.process import Process
from sevlaunch.host.folders import runtime_folder


class TakenDown(Struct, frozen=True):
    """What became of one of several guests: ``how`` it ended, as :func:`take_down` says it, or an error."""

    name: str
    how: str | None
    error: SevlaunchError | None = None


async def take_down_many(
    names: Sequence[str], *, root: Path | None = None, now: bool = False, limit: float = POWERDOWN_LIMIT
) -> list[TakenDown]:
    """Take guests down at the same time, each as :func:`take_down`; what became of each, in their order."""

    async def one_down(name: str) -> TakenDown:
        try:
            return TakenDown(name, await take_down(name, root=root, now=now, limit=limit))
        except SevlaunchError as error:
            return TakenDown(name, None, error)

    return await asyncio.gather(*(one_down(name) for name in names))


async def take_down(name: str, *, root: Path | None = None, now: bool = False, limit: float = POWERDOWN_LIMIT) -> str:
    """End a guest and remove its runtime folder: ACPI power-down, then QMP quit, then SIGTERM, then SIGKILL.

    :param root: the folder of all guests; default: the user's runtime folder.
    :param now: no power-down: the guest is not asked.
    :param limit: seconds that the guest's OS has for the power-down.
    :return: how it ended: ``powered down``, ``quit``, ``terminated``, ``killed``, or ``had ended already``.
    :raise GuestNotFound: when there is none.
    :raise NameTaken: when another command is starting it or taking it down.
    :raise QemuError: when its QEMU lives and can't be found.
    """
    folder = find(root or runtime_folder(), name)
    with hold_launcher(folder, REMOVING):
        pid = qemu_pid(folder)
        process = Process.attach(pid) if pid else None
        how = "had ended already"
        if process:
            try:
                how = await end_guest(asking(folder), process, now=now, limit=limit)
            finally:
                process.close()
        if is_locked(folder):
            # To remove the folder would make everybody forget it.
            raise QemuError(
                f"a process that can't be found holds the lock of {name}",
                hint=f"as root, end the process that has {folder.file(LOCK)} open (fuser shows it), then try again",
            )
        for beside in companions(folder):
            # They end by themselves when QEMU hangs up; this is for those that don't.
            if not await beside.ends_within(QUIT_LIMIT):
                beside.end()
            beside.close()
        folder.remove()
    return how
