"""The file with a guest's SSH host key: ssh writes it at the first contact, and knows the guest by it from then on."""

from __future__ import annotations

import os
from pathlib import Path

from sevlaunch.atomic import make_private_folder, space_hint
from sevlaunch.errors import HostError
from sevlaunch.guest.safe_files import OpenFolder
from sevlaunch.plan.places import KNOWN_HOSTS


def prepare_known_hosts(file: Path) -> None:
    """See that ssh can write the guest's host key down.

    :raise HostError: when it can't.
    """
    try:
        make_private_folder(file.parent)
        with OpenFolder.open(file.parent, owner=os.geteuid()) as folder:
            os.close(folder.open_file(file.name, os.O_RDWR | os.O_CREAT))
    except OSError as error:
        raise HostError(
            f"can't make {file}, which is to keep the guest's host key: {error.strerror}",
            hint=space_hint(error) or "set XDG_STATE_HOME to a folder of yours",
        ) from error


def forget_host_key(state_folder: Path) -> None:
    """Forget the host key of a guest whose system begins anew, and makes another one.

    :raise HostError: when the file can't be removed.
    """
    file = state_folder / KNOWN_HOSTS
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        raise HostError(f"can't remove {file}, the host key of an earlier guest: {error.strerror}") from error
