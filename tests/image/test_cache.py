"""The cache: who may have made it, what is taken for an image there, and several who want one at once."""

from __future__ import annotations

import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sevlaunch.errors import ImageError, UnsafeFile
from sevlaunch.host.folders import image_file, images_folder
from sevlaunch.image.download import Reports
from sevlaunch.image.fetch import fetch_image
from sevlaunch.image.store import find_image, list_images, locked, remove_image
from sevlaunch.image.web import Cancelled, Line
from sevlaunch.image_reference import entry_of
from tests import needs
from tests.conftest import wait_until
from tests.image.server import Server

CONTENT = b"sectors" * 10000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
ENTRY = entry_of("", SHA256)


def test_the_path_follows_from_folder_and_entry_alone(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert image_file("debian-13") == cache / "debian-13/image" and not cache.exists()
    assert image_file(entry_of("x", "AB" * 32), Path("/x")) == Path(f"/x/sha256-{'ab' * 32}/image")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert images_folder() == (
        Path("/var/cache/sevlaunch/images") if os.geteuid() == 0 else Path.home() / ".cache/sevlaunch/images"
    )


def test_a_file_that_was_changed_is_none_and_is_fetched_again(server: Server, cache: Path) -> None:
    url = server.put("disk.raw", CONTENT)
    path = fetch_image(url, SHA256).path
    path.chmod(0o644)
    path.write_bytes(CONTENT[::-1])
    found = find_image(ENTRY)
    assert found and (found.state, found.record) == ("changed", None)
    assert fetch_image(url, SHA256).new and path.read_bytes() == CONTENT
    (path.parent / "image.json").write_text("{}")
    assert find_image(ENTRY).state == "changed"  # type: ignore[union-attr]
    assert fetch_image(url, SHA256).new


def test_an_image_is_removed_whole(server: Server, cache: Path) -> None:
    url = server.put("disk.raw", CONTENT)
    path = fetch_image(url, SHA256).path
    with locked(path.parent, Line(), lambda: None), pytest.raises(ImageError, match="being fetched by another process"):
        remove_image(ENTRY)
    assert remove_image(ENTRY).size == len(CONTENT)
    assert list(cache.iterdir()) == [] and list_images() == []
    for name in (ENTRY, "debian-13", "..", "/etc", ""):
        with pytest.raises(ImageError, match="was fetched"):
            remove_image(name)


@pytest.mark.parametrize("place", ["cache", "entry"])
@pytest.mark.parametrize("problem", ["open", "file", "link"])
def test_a_folder_that_others_may_write_is_not_used(
    server: Server, cache: Path, base: Path, place: str, problem: str
) -> None:
    url = server.put("disk.raw", CONTENT)
    fetch_image(url, SHA256)
    folder = cache if place == "cache" else cache / ENTRY
    if problem == "open":
        folder.chmod(0o777)
        words = "can be written by others"
    else:
        folder.rename(base / "moved")
        folder.symlink_to(base / "moved") if problem == "link" else folder.write_text("")
        words = "is no folder"
    for use in (lambda: fetch_image(url, SHA256), lambda: find_image(ENTRY), list_images, lambda: remove_image(ENTRY)):
        with pytest.raises(UnsafeFile, match=words):
            use()


def test_a_folder_of_somebody_else_is_not_used(server: Server, cache: Path) -> None:
    needs.root("giving a folder away")
    url = server.put("disk.raw", CONTENT)
    path = fetch_image(url, SHA256).path
    os.chown(path, 65534, 65534)
    assert find_image(ENTRY) is None
    os.chown(path.parent, 65534, 65534)
    with pytest.raises(UnsafeFile, match=r"belongs to another user \(uid 65534\)"):
        fetch_image(url, SHA256)


def test_many_at_once_fetch_it_once(server: Server, cache: Path) -> None:
    url = server.put("disk.raw", CONTENT)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: fetch_image(url, SHA256), range(8)))
    assert sorted(one.new for one in found) == [False] * 7 + [True]
    assert len(server.requests("disk.raw")) == 1


def test_who_waits_for_another_is_told_and_can_be_ended(server: Server, cache: Path) -> None:
    url = server.put("disk.raw", CONTENT)
    line, told = Line(), threading.Event()
    with ThreadPoolExecutor(1) as pool, locked(cache / ENTRY, Line(), lambda: None):
        reports = Reports(told=lambda text: told.set())
        waiting = pool.submit(fetch_image, url, SHA256, line=line, reports=reports)
        assert told.wait(30)
        line.cancel()
        with pytest.raises(Cancelled):
            waiting.result(30)
    assert server.asked == []


def test_a_download_is_ended_from_another_thread(server: Server, cache: Path) -> None:
    url = server.put("disk.raw", CONTENT, stalls_after=1000)
    line = Line()
    with ThreadPoolExecutor(1) as pool:
        fetching = pool.submit(fetch_image, url, SHA256, line=line)
        wait_until(lambda: (found := find_image(ENTRY)) and found.size == 1000, 30, "the first bytes")
        line.cancel()
        with pytest.raises(Cancelled):
            fetching.result(30)
    server.files["disk.raw"].stalls_after = None
    assert fetch_image(url, SHA256).new and server.asked[-1].range == "bytes=1000-"
