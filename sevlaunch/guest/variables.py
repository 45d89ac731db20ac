"""A guest's own store of UEFI variables, which outlives it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from sevlaunch.errors import HostError
from sevlaunch.host.accounts import PASS, READ, WRITE, Account, grant
from sevlaunch.plan.plan import Plan


def prepare_variables(plan: Plan, account: Account | None) -> None:
    """Make the store from its template where it is not there yet, and let QEMU's account at it.

    :raise HostError: when it can't be made.
    """
    if plan.firmware.vars is None:
        return
    variables, template = Path(plan.firmware.vars.value), plan.firmware.vars_template
    if template and not variables.exists():
        _copy(Path(template), variables)
    if account and variables.is_relative_to(plan.state_folder):
        grant(variables, account, READ | WRITE)
        for folder in (plan.state_folder, plan.state_folder.parent):
            grant(folder, account, PASS)


def _copy(template: Path, target: Path) -> None:
    """The guest's own copy of the variable store, there whole or not at all."""
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.new-{os.getpid()}")
        try:
            shutil.copyfile(template, temporary)
            temporary.chmod(0o600)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise HostError(
            f"can't copy the NVRAM {template} to {target}: {error.strerror}",
            hint="name another place in firmware.nvram, or set XDG_STATE_HOME",
        ) from error
