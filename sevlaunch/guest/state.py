"""The folders that outlive a guest and that QEMU's account, or that of a helper program, writes to."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from sevlaunch.atomic import make_private_folder
from sevlaunch.errors import HostError
from sevlaunch.host.accounts import Account, let_through
from sevlaunch.plan.plan import Plan


def prepare_state_folders(plan: Plan, account: Account | None) -> None:
    """Make what the plan needs below the guest's state folder: each 0700, and the account's own.

    :raise HostError: when one can't be made, or belongs to somebody else.
    """
    wanted = os.geteuid() if account is None else account.uid
    for path in map(Path, plan.needs.state_folders):
        try:
            make_private_folder(path.parent)
            _make(path, account)
            found = path.lstat()
        except OSError as error:
            raise HostError(
                f"can't make the folder {path}: {error.strerror}", hint="make room for it, or set XDG_STATE_HOME"
            ) from error
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != wanted:
            name = account.name if account else "this user"
            raise HostError(
                f"the folder {path} is not {name}'s, who is to write to it",
                hint=f"chown -R {wanted} it when what is in it is that guest's, or remove it",
            )
        if account:
            let_through(plan.state_folder, account)


def _make(path: Path, account: Account | None) -> None:
    """The folder, unless it is there: another account's is made under another name first, to be its from the start."""
    if path.exists():
        return
    if account is None:
        path.mkdir(mode=0o700, exist_ok=True)
        return
    new = path.with_name(f".{path.name}.new-{os.getpid()}")
    new.mkdir(mode=0o700)
    os.chown(new, account.uid, account.gid)
    new.rename(path)
