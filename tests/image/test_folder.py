"""The image of a folder: what is in it, what can't be, and that nothing else of the host gets there."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import pycdlib
import pytest

from sevlaunch.errors import HostError
from sevlaunch.image import folder as folders
from sevlaunch.image.folder import write_folder_image
from tests import needs

DEEP = "/".join(f"level {number}" for number in range(12))


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A folder with one of each that can be in an image."""
    path = tmp_path / "tools"
    (path / DEEP).mkdir(parents=True)
    (path / DEEP / "deep").write_text("deep down")
    (path / "run.sh").write_text("#!/bin/sh")
    (path / "run.sh").chmod(0o750)
    (path / "größe.bin").write_bytes(os.urandom(3 << 20))
    (path / "empty").write_bytes(b"")
    (path / ("n" * 250)).write_text("a long name")
    (path / "outside").symlink_to("/etc/shadow")
    (path / "inside").symlink_to("run.sh")
    return path


def image_of(folder: Path, file: Path, label: str = "TOOLS") -> bytes:
    """The image, which is left in ``file``."""
    with file.open("w+b") as stream:
        write_folder_image(folder, label, stream)
    return file.read_bytes()


def opened(image: bytes) -> Any:
    """The image for a reader."""
    iso = pycdlib.PyCdlib()
    iso.open_fp(BytesIO(image))
    return iso


def content(iso: Any, path: str) -> bytes:
    """What is in a file of the image."""
    found = BytesIO()
    iso.get_file_from_iso_fp(found, rr_path=path)
    return found.getvalue()


def test_all_that_is_in_the_folder_is_in_the_image_and_links_lead_where_they_led(tools: Path, tmp_path: Path) -> None:
    iso = opened(image_of(tools, tmp_path / "image"))
    assert content(iso, f"/{DEEP}/deep") == b"deep down"
    assert content(iso, "/größe.bin") == (tools / "größe.bin").read_bytes()
    assert content(iso, "/" + "n" * 250) == b"a long name"
    for name, target in (("outside", b"/etc/shadow"), ("inside", b"run.sh")):
        record = iso.get_record(rr_path=f"/{name}")
        assert record.rock_ridge.is_symlink() and record.rock_ridge.symlink_path() == target
    modes = {name: iso.get_record(rr_path=f"/{name}").rock_ridge.get_file_mode() for name in ("run.sh", "größe.bin")}
    assert modes == {"run.sh": stat.S_IFREG | 0o555, "größe.bin": stat.S_IFREG | 0o444}


def test_it_has_its_label(tools: Path, tmp_path: Path) -> None:
    blkid = needs.program("blkid", "util-linux")
    image_of(tools, tmp_path / "image", "my-tools_1")
    told = subprocess.run([blkid, "-p", tmp_path / "image"], capture_output=True, text=True, check=True).stdout
    assert 'LABEL="my-tools_1"' in told and 'TYPE="iso9660"' in told


def test_the_same_content_gives_the_same_bytes_and_another_byte_others(
    tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = image_of(tools, tmp_path / "image")
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 86_400 * 400)
    (tools / "run.sh").touch()
    assert image_of(tools, tmp_path / "image") == first
    (tools / "run.sh").write_text("#!/bin/sH")
    assert image_of(tools, tmp_path / "image") != first


def test_what_no_image_can_hold_is_named_all_at_once(tools: Path, tmp_path: Path) -> None:
    os.mkfifo(tools / DEEP / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tools / "socket"))
    os.close(os.open(os.fsencode(tools) + b"/\xff", os.O_CREAT | os.O_WRONLY))
    with pytest.raises(HostError) as caught:
        image_of(tools, tmp_path / "image")
    assert sorted(problem.message for problem in caught.value.problems) == [
        "b'\\xff' has a name, or a target, that is no UTF-8",
        f"{DEEP}/fifo is a FIFO",
        "socket is a socket",
    ]
    assert "mke2fs -d FOLDER" in caught.value.hint


def test_a_device_file_is_refused(tools: Path, tmp_path: Path) -> None:
    needs.root("making a device file")
    try:
        os.mknod(tools / "zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    except OSError as error:
        pytest.skip(f"no device file can be made here: {error}")
    with pytest.raises(HostError) as caught:
        image_of(tools, tmp_path / "image")
    assert [problem.message for problem in caught.value.problems] == ["zero is a character device"]


def test_what_is_too_much_is_refused_before_it_is_read(tools: Path, tmp_path: Path) -> None:
    with (tools / "large").open("wb") as stream:
        stream.truncate(folders.MOST_BYTES)
    with pytest.raises(HostError) as caught:
        image_of(tools, tmp_path / "image")
    assert "at most 8G fit" in caught.value.problems[0].message
    assert (tmp_path / "image").stat().st_size == 0


def test_too_many_files_are_refused(tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "MOST_FILES", 10)
    with pytest.raises(HostError, match="more than 10 files, links and folders"):
        image_of(tools, tmp_path / "image")


def test_a_file_that_is_exchanged_while_it_is_read_is_not_followed(
    tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("#!/bin/sh")
    look = folders._looked_through

    def exchanged(folder: Path, root: int) -> list[Any]:
        entries = look(folder, root)
        (folder / "run.sh").unlink()
        (folder / "run.sh").symlink_to(secret)
        return entries

    monkeypatch.setattr(folders, "_looked_through", exchanged)
    with pytest.raises(HostError, match=r"can't read run\.sh"):
        image_of(tools, tmp_path / "image")


def test_a_file_that_becomes_shorter_is_told(tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look = folders._looked_through

    def cut(folder: Path, root: int) -> list[Any]:
        entries = look(folder, root)
        os.truncate(folder / "größe.bin", 1000)
        return entries

    monkeypatch.setattr(folders, "_looked_through", cut)
    with pytest.raises(HostError, match=r"größe\.bin changed while it was read"):
        image_of(tools, tmp_path / "image")


def test_a_folder_that_is_none_is_told(tools: Path, tmp_path: Path) -> None:
    with pytest.raises(HostError, match="can't open the folder"):
        image_of(tools / "run.sh", tmp_path / "image")
