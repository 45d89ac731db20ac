"""The account that QEMU runs as when root starts it for another user, and access to files for that account alone."""

from __future__ import annotations

import os
import pwd
import struct
import subprocess
from pathlib import Path

from msgspec import Struct

from sevlaunch.errors import HostError

_ACL = "system.posix_acl_access"
# linux/posix_acl_xattr.h: the header is a version, each entry tag, permissions, id; entries stand in the order of tags.
_HEADER = struct.Struct("<I")
_ENTRY = struct.Struct("<HHI")
_VERSION = 2
ACL_USER, ACL_GROUP = 2, 8
_USER_OBJ, _GROUP_OBJ, _MASK, _OTHER = 1, 4, 0x10, 0x20
_NO_ID = 0xFFFFFFFF

File = Path | int

# Questions of test(1).
_QUESTIONS = ((os.R_OK, "-r"), (os.W_OK, "-w"), (os.X_OK, "-x"))

# Permissions: PASS lets through a folder to what is known to be in it.
READ, WRITE, PASS = 4, 2, 1


class Account(Struct, frozen=True):
    """A user with all its groups."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]

    def become(self) -> None:
        """Turn this process into one of the account, for good. For a child between fork and exec."""
        os.setgroups(self.groups)
        os.setresgid(self.gid, self.gid, self.gid)
        os.setresuid(self.uid, self.uid, self.uid)


def find_account(name: str) -> Account:
    """The account of the user ``name``.

    :raise HostError: when there is none.
    """
    try:
        entry = pwd.getpwnam(name)
    except KeyError as error:
        raise HostError(
            f"run_as: no user {name!r} is known here", hint="useradd --system it, or correct run_as"
        ) from error
    return Account(name, entry.pw_uid, entry.pw_gid, tuple(os.getgrouplist(name, entry.pw_gid)))


def may(path: str, mode: int, account: Account | None = None) -> bool:
    """Whether this user or, in its place, an account has access to a file.

    :param mode: as for :func:`os.access`.
    """
    if account is None:
        return os.access(path, mode, effective_ids=True)
    # A short-lived process asks: a change of this one's user would be one for all its threads.
    asked = ["-e", *(question for bit, question in _QUESTIONS if mode & bit)]
    script = " && ".join(f'[ {question} "$1" ]' for question in asked)
    done = subprocess.run(
        ["/bin/sh", "-c", script, "sh", path],
        stdin=subprocess.DEVNULL,
        user=account.uid,
        group=account.gid,
        extra_groups=account.groups,
        env={},
        check=False,
    )
    return done.returncode == 0


def let_through(folder: Path, account: Account) -> None:
    """Let the account pass through a guest's state folder, and the two above it that are this user's alone.

    :raise HostError: when the file system has no access control lists.
    """
    for place in (folder, *folder.parents[:2]):
        grant(place, account, PASS)


def grant(file: File, account: Account, permissions: int) -> None:
    """Give the account ``permissions`` on a file of ours, beside those that were given any before: acl(5).

    :param file: its path, or a descriptor of it.
    :raise HostError: when the file system has no access control lists.
    """
    users = {**_granted(file), account.uid: permissions}
    mask = 0
    for given in users.values():
        mask |= given
    entries = (
        (_USER_OBJ, _mode(file) >> 6 & 7, _NO_ID),
        *((ACL_USER, given, uid) for uid, given in sorted(users.items())),
        (_GROUP_OBJ, 0, _NO_ID),
        (_MASK, mask, _NO_ID),
        (_OTHER, 0, _NO_ID),
    )
    try:
        os.setxattr(file, _ACL, _HEADER.pack(_VERSION) + b"".join(_ENTRY.pack(*entry) for entry in entries))
    except OSError as error:
        raise HostError(
            f"can't give {account.name} access to {_name(file)}: {error.strerror}",
            hint="run_as needs a file system with access control lists, such as tmpfs, ext4, xfs, btrfs",
        ) from error


def has_grant(file: File) -> bool:
    """Whether somebody was given access to the file by :func:`grant`."""
    return bool(_granted(file))


def withdraw_grants(file: File) -> None:
    """Take all access back but the owner's."""
    if has_grant(file):
        os.removexattr(file, _ACL)
        os.chmod(file, _mode(file) & 0o1700)  # noqa: PTH101 - a descriptor has no Path


def acl_entries(content: bytes) -> list[tuple[int, int, int]]:
    """The (tag, permissions, id) of an access control list as the kernel hands it out."""
    body = content[_HEADER.size :]
    return list(_ENTRY.iter_unpack(body[: len(body) // _ENTRY.size * _ENTRY.size]))


def _name(file: File) -> str:
    return str(Path(f"/proc/self/fd/{file}").readlink() if isinstance(file, int) else file)


def _mode(file: File) -> int:
    return os.stat(file).st_mode  # noqa: PTH116 - a descriptor has no Path


def _granted(file: File) -> dict[int, int]:
    try:
        content = os.getxattr(file, _ACL)
    except OSError:
        # There is none, or the file system has none at all.
        return {}
    return {number: permissions for tag, permissions, number in acl_entries(content) if tag == ACL_USER}
