"""An initrd with credentials behind it: the same bytes for the same input, in the format that the kernel reads."""

from __future__ import annotations

import gzip
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from sevlaunch.errors import HostError, SevlaunchError, UsageError
from sevlaunch.image.initrd import credentials_archive, joined_hash, joined_initrd


class Member(NamedTuple):
    """A member of an archive."""

    name: str
    mode: int
    owner: tuple[int, int]
    modified: int
    content: bytes


def members(archive: bytes) -> Iterator[Member]:
    """Linux' Documentation/driver-api/early-userspace/buffer-format.rst, read word by word."""
    at = 0
    while True:
        assert at % 4 == 0
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * index : at + 14 + 8 * index], 16) for index in range(13)]
        _, mode, uid, gid, _, modified, size, *_, name_size, _ = fields
        name = archive[at + 110 : at + 110 + name_size]
        assert name.endswith(b"\0")
        start = -(-(at + 110 + name_size) // 4) * 4
        if name == b"TRAILER!!!\0":
            assert archive[start:].strip(b"\0") == b""
            return
        yield Member(name[:-1].decode(), mode, (uid, gid), modified, archive[start : start + size])
        at = -(-(start + size) // 4) * 4


def test_an_archive_has_what_systemd_looks_for_and_nothing_of_this_machine() -> None:
    found = list(members(credentials_archive({"motd": b"hello\n", "a.key": bytes(range(7))})))
    assert [(one.name, stat.filemode(one.mode), one.content) for one in found] == [
        (".extra", "dr-xr-xr-x", b""),
        (".extra/system_credentials", "dr-x------", b""),
        (".extra/system_credentials/a.key.cred", "-r--------", bytes(range(7))),
        (".extra/system_credentials/motd.cred", "-r--------", b"hello\n"),
    ]
    assert {(one.owner, one.modified) for one in found} == {((0, 0), 0)}


def test_the_order_of_a_profile_does_not_matter() -> None:
    credentials = {"b": b"1", "a": b"2", "c": b""}
    backwards = dict(reversed(credentials.items()))
    assert credentials_archive(credentials) == credentials_archive(backwards)
    digest = "f786e7cf53b694cc7d29498bb39046de3ed549b3239579135287c2360a2b0d04"
    assert hashlib.sha256(credentials_archive(credentials)).hexdigest() == digest, "digests of yesterday are void"


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 4096, (1 << 20) + 1])
def test_it_stands_behind_the_initrd_at_a_multiple_of_four_bytes(size: int, tmp_path: Path) -> None:
    initrd = tmp_path / "initrd"
    content = gzip.compress(os.urandom(size), mtime=0)
    initrd.write_bytes(content)
    joined = b"".join(joined_initrd(initrd, {"a": b"b"}))
    assert joined.startswith(content)
    archive = joined[len(content) :]
    padding = -len(content) % 4
    assert archive[:padding] == bytes(padding)
    assert archive[padding:] == credentials_archive({"a": b"b"})
    assert joined_hash(initrd, {"a": b"b"}) == hashlib.sha256(joined).digest()
    assert b"".join(joined_initrd(initrd, {})) == content


@pytest.mark.parametrize("error", [UsageError, HostError])
def test_an_initrd_that_is_none_is_told(error: type[SevlaunchError], tmp_path: Path) -> None:
    initrd = tmp_path / "initrd"
    with pytest.raises(error, match=r"can't read .*/initrd: No such file"):
        list(joined_initrd(initrd, {}, error=error))
    initrd.touch()
    with pytest.raises(error, match="initrd is empty"):
        list(joined_initrd(initrd, {"a": b""}, error=error))
    # A hole: nothing is written.
    os.truncate(initrd, 4 << 30)
    with pytest.raises(error, match="has 4 GiB or more"):
        joined_hash(initrd, {}) if error is UsageError else list(joined_initrd(initrd, {}, error=error))
