"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from sevlaunch.atomic import appearing, write_whole
from sevlaunch.errors import HostError


@pytest.fixture(params=["unnamed", "named"])
def names(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many names a folder has while a file appears in it: none where the file system has files without a name."""
    if request.param == "unnamed":
        return 0
    real = os.open

    def without(path: str, flags: int, *arguments: Any, **options: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "no such files here")
        return real(path, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", without)
    return 1


def test_a_file_appears_whole(names: int, tmp_path: Path) -> None:
    file = tmp_path / "file"
    with appearing(file) as stream:
        stream.write(b"content")
        assert len(list(tmp_path.iterdir())) == names
        assert not file.exists()
    assert file.read_bytes() == b"content"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_that_is_there_stays(names: int, tmp_path: Path) -> None:
    file = tmp_path / "file"
    with appearing(file) as stream:
        stream.write(b"later")
        file.write_bytes(b"earlier")
    assert file.read_bytes() == b"earlier"
    write_whole(file, b"later", replace=False)
    assert file.read_bytes() == b"earlier"
    assert list(tmp_path.iterdir()) == [file]


def test_what_is_not_finished_leaves_nothing(names: int, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), appearing(tmp_path / "file") as stream:
        stream.write(b"half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    write_whole(file, b"old")

    def fails(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch, pytest.raises(HostError, match="Input/output error"):
        patch.setattr(Path, "replace", fails)
        write_whole(file, b"new")
    assert file.read_bytes() == b"old"
    write_whole(file, b"new")
    assert file.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [file]
