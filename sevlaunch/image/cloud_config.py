"""User data for cloud-init: what a profile asks for, and user data of one's own beside it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

from msgspec import Struct

from sevlaunch.profile.seed_values import (
    CLOUD_CONFIG,
    goes_with_others,
    is_cloud_config,
    is_message,
    looks_like_message,
    yaml_text,
)

# Where both say something, lists are joined, and of all else one's own counts: cloudinit/mergers.
_JOIN = "list(append)+dict(no_replace,recurse_list)+str()"
# A #cloud-config that says itself how it is merged: cloudinit/handlers/cloud_config.py.
_SAYS_HOW = ("merge_how", "merge_type")
_SUDO = "ALL=(ALL) NOPASSWD:ALL"


class SeedFile(Struct, frozen=True):
    """A file that cloud-init writes: ``mode`` as octal digits, ``owner`` as USER or USER:GROUP."""

    path: str
    content: bytes
    mode: str
    owner: str


class Wishes(Struct, frozen=True):
    """What a profile says for cloud-init; ``user_data`` is one's own. ``user`` None: the one of the image itself."""

    user: str | None
    password_hash: str | None = None
    files: tuple[SeedFile, ...] = ()
    run: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    user_data: str | None = None


def user_data(wishes: Wishes, keys: Sequence[str]) -> str:
    """The user data of a seed; ``keys`` are the public SSH keys that log in.

    A #cloud-config, or a MIME message of it and one's own user data, which cloud-init merges itself.
    """
    own = wishes.user_data
    if own is not None and not goes_with_others(own):
        return own
    config = f"{CLOUD_CONFIG}\n{yaml_text(dict(_config(wishes, keys)))}"
    # Between others it is taken for what it is, whatever the files in it hold.
    return config if own is None and not looks_like_message(config) else _message(config, own)


def _config(wishes: Wishes, keys: Sequence[str]) -> Iterator[tuple[str, Any]]:
    if wishes.user is not None:
        yield "users", [dict(_user(wishes.user, wishes.password_hash, keys))]
        if wishes.user == "root":
            yield "disable_root", False
    elif keys:
        yield "ssh_authorized_keys", list(keys)
    # sudo looks for the host's own name.
    yield "manage_etc_hosts", "localhost"
    if wishes.files:
        yield "write_files", [dict(_file(file)) for file in wishes.files]
    if wishes.packages:
        # The lists of an image are old, or not there.
        yield "package_update", True
        yield "packages", list(wishes.packages)
    if wishes.run:
        yield "runcmd", list(wishes.run)


def _user(name: str, password_hash: str | None, keys: Sequence[str]) -> Iterator[tuple[str, Any]]:
    yield "name", name
    if name != "root":
        yield "shell", "/bin/bash"
        yield "sudo", _SUDO
    yield "lock_passwd", password_hash is None
    if password_hash is not None:
        yield "hashed_passwd", password_hash
    if keys:
        yield "ssh_authorized_keys", list(keys)


def _file(file: SeedFile) -> Iterator[tuple[str, Any]]:
    yield "path", file.path
    yield "permissions", file.mode
    yield "owner", file.owner
    if file.owner.partition(":")[0] != "root":
        # Users are made later than files are written.
        yield "defer", True
    try:
        text = file.content.decode()
    except UnicodeDecodeError:
        text = None
    if text is not None and all(sign.isprintable() or sign in "\n\t" for sign in text):
        yield "content", text
    else:
        yield "encoding", "b64"
        yield "content", base64.b64encode(file.content).decode()


def _message(config: str, own: str | None) -> str:
    """The documents; a later one says how it is merged with those before."""
    from email.mime.multipart import MIMEMultipart

    parts = [_part(config, "cloud-config", "sevlaunch")]
    if own is not None:
        # cloud-init finds out by itself what it is.
        theirs = _parsed(own) if is_message(own) else _part(own, "plain", "user-data")
        if is_cloud_config(own) and any(line.startswith(_SAYS_HOW) for line in own.splitlines()):
            parts.append(theirs)
        else:
            parts[0]["Merge-Type"] = _JOIN
            parts.insert(0, theirs)
    # One that no document holds, and the same for the same documents.
    boundary = hashlib.sha256(f"{len(config)} {config}{own or ''}".encode()).hexdigest()
    message = MIMEMultipart(boundary=boundary, _subparts=parts)
    return message.as_string()


def _part(text: str, kind: str, name: str) -> Any:
    from email.mime.text import MIMEText

    part = MIMEText(text, kind, "utf-8")
    part.add_header("Content-Disposition", "attachment", filename=name)
    return part


def _parsed(text: str) -> Any:
    from email import message_from_string

    return message_from_string(text)
