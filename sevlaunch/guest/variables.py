"""A guest's own store of UEFI variables, which outlives it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from sevlaunch.atomic import appearing, make_private_folder
from sevlaunch.errors import HostError
from sevlaunch.guest.locks import VARIABLES, take
from sevlaunch.host.accounts import READ, WRITE, Account, grant, let_through
from sevlaunch.opening import open_regular
from sevlaunch.plan.plan import Plan
from sevlaunch.qcow2 import Qcow2


def prepare_variables(plan: Plan, account: Account | None) -> int:
    """Make the store from its template where it is not there yet, let QEMU's account at it, and lock it.

    :return: the open store with its lock, for QEMU to inherit: the lock lives as long as QEMU does. -1: there is none.
    :raise HostError: when it can't be made, or another guest that runs has it.
    """
    if plan.firmware.vars is None:
        return -1
    variables, template = Path(plan.firmware.vars.value), plan.firmware.vars_template
    if template and not variables.exists():
        _copy(plan, Path(template), variables)
    if account and variables.is_relative_to(plan.state_folder):
        grant(variables, account, READ | WRITE)
        let_through(plan.state_folder, account)
    return _lock(variables)


def _check_whole(plan: Plan, template: Path) -> None:
    """A qcow2 image that leans on another file would not do so from where its copy is.

    :raise HostError: when it does, or is damaged.
    """
    if plan.firmware.vars_format.value != "qcow2":
        return
    try:
        with open_regular(template) as stream:
            Qcow2(stream)
    except ValueError as error:
        raise HostError(
            f"can't make the guest's own NVRAM from {template}: {error}",
            hint=f"make one that stands alone: qemu-img convert -O qcow2 {template} VARS.qcow2",
        ) from error


def _lock(variables: Path) -> int:
    """The open store, which no other guest has. QEMU's own locks let several write to one store."""
    try:
        fd = os.open(variables, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise HostError(
            f"can't open the NVRAM {variables}: {error.strerror}", hint="name another place in firmware.nvram"
        ) from error
    try:
        free = take(fd, VARIABLES)
    except OSError as error:
        os.close(fd)
        raise HostError(
            f"can't lock the NVRAM {variables}: {error.strerror}",
            hint="name a place in firmware.nvram whose file system has locks",
        ) from error
    if not free:
        os.close(fd)
        raise HostError(
            f"the NVRAM {variables} belongs to another guest that runs, and two would destroy it",
            hint="take that guest down, or give this one another name with --name, or another place in firmware.nvram",
        )
    return fd


def _copy(plan: Plan, template: Path, target: Path) -> None:
    """The guest's own copy of the variable store, there whole or not at all."""
    try:
        make_private_folder(target.parent)
        _check_whole(plan, template)
        # Another start may make it in this moment, and then have it locked: what is there stays.
        with template.open("rb") as source, appearing(target) as copy:
            shutil.copyfileobj(source, copy)
    except OSError as error:
        raise HostError(
            f"can't copy the NVRAM {template} to {target}: {error.strerror}",
            hint="name another place in firmware.nvram, or set XDG_STATE_HOME",
        ) from error
