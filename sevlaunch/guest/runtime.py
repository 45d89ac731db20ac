"""The folders of a user's guests: made for this user alone, and used only where nobody else can exchange them."""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath

from sevlaunch.atomic import make_private_folder
from sevlaunch.errors import HostError, UnsafeFile
from sevlaunch.guest.safe_files import OpenFolder
from sevlaunch.host.accounts import has_grant

# As many as the kernel follows: path_resolution(7).
_MOST_LINKS = 40
_ELSEWHERE = "set XDG_RUNTIME_DIR to a folder of yours"
_STATE_ELSEWHERE = "set XDG_STATE_HOME to a folder of yours"


def open_root(root: Path) -> OpenFolder:
    """The folder of all guests.

    :raise FileNotFoundError: when there is none: no guest is there, either.
    :raise HostError: when it, or a folder on the way to it, belongs to somebody else.
    """
    _check_way(root)
    try:
        return OpenFolder.open(root, owner=os.geteuid())
    except UnsafeFile as error:
        raise HostError(f"{root} is no folder of this user", hint=f"remove it, or {_ELSEWHERE}") from error
    except FileNotFoundError:
        raise
    except OSError as error:
        raise HostError(f"can't open {root}: {error.strerror}", hint=_ELSEWHERE) from error


def prepare_root(root: Path) -> None:
    """Make the folder of all guests, for this user alone.

    :raise HostError: when it can't be had, or belongs to somebody else.
    """
    _check_way(root)
    try:
        make_private_folder(root)
        opened = open_root(root)
    except OSError as error:
        raise HostError(f"can't create {root}: {error.strerror}", hint=_ELSEWHERE) from error
    with opened:
        if stat.S_IMODE(os.fstat(opened.fd).st_mode) != 0o700 and not has_grant(opened.fd):
            os.fchmod(opened.fd, 0o700)


def check_state_folder(folder: Path) -> None:
    """See that what outlives a guest can't be exchanged; it need not be there yet.

    :raise HostError: when it, or a folder on the way to it, belongs to somebody else.
    """
    _check_way(folder / "state", f"exchange what is in {folder}", _STATE_ELSEWHERE)


def _check_way(root: Path, could: str = "", elsewhere: str = _ELSEWHERE) -> None:
    """Whoever can write a folder on the way can exchange what comes after it. A group is taken for the owner's friends.

    :param could: what somebody else could do; default: put other guests into ``root``.
    :raise HostError: when that is somebody else than this user, and than the administrator.
    """
    could = could or f"put other guests into {root}"
    # In a user namespace the administrator has another number.
    trusted = {os.geteuid(), 0, Path("/").stat().st_uid}
    place, rest, links = PurePosixPath("/"), list(reversed(root.absolute().parts[1:-1])), 0
    while rest:
        name = rest.pop()
        place = place.parent if name == ".." else place / name
        try:
            found = os.lstat(place)
        except FileNotFoundError:
            return
        except OSError as error:
            raise HostError(f"can't look at {place}: {error.strerror}", hint=elsewhere) from error
        if found.st_uid not in trusted:
            raise HostError(
                f"{place} belongs to another user (uid {found.st_uid}), who could {could}",
                hint=elsewhere,
            )
        if stat.S_ISLNK(found.st_mode):
            links += 1
            if links > _MOST_LINKS:
                raise HostError(f"{root} leads through too many links", hint=elsewhere)
            target = Path(place).readlink()
            place = PurePosixPath("/") if target.is_absolute() else place.parent
            rest += reversed([part for part in target.parts if part != "/"])
        elif found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
            raise HostError(f"{place} can be written by everybody, who could {could}", hint=elsewhere)
