"""Fetching from a server that breaks off, stalls, lies about the length, ignores ranges, or serves something else."""

from __future__ import annotations

import hashlib
import os
import random
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sevlaunch.errors import ImageError, UsageError
from sevlaunch.image.download import Reports
from sevlaunch.image.fetch import Fetched, fetch_image
from sevlaunch.image.proof import FetchOptions
from sevlaunch.image.store import PARTIAL, find_image, list_images, remove_image
from sevlaunch.image_reference import entry_of
from tests.image.server import Server

CONTENT = random.Random(1).randbytes(3 << 20)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
# Nothing waits for long here.
OPTIONS: dict[str, Any] = {"stall_limit": 5.0, "first_wait": 0.0}


def fetch(url: str, sha256: str = SHA256, told: Callable[[str], None] = lambda text: None, **options: Any) -> Fetched:
    """An image, with the patience of a test."""
    return fetch_image(url, sha256, options=FetchOptions(**{**OPTIONS, **options}), reports=Reports(told=told))


def test_an_image_is_fetched_once_and_can_t_be_written(server: Server, cache: Path) -> None:
    url = server.put("disk.raw", CONTENT)
    seen: list[tuple[int, int]] = []
    first = fetch_image(url, SHA256, reports=Reports(progress=lambda done, total: seen.append((done, total))))
    assert first.new and first.path.read_bytes() == CONTENT
    assert first.path == cache / entry_of("", SHA256) / "image"
    assert seen[-1] == (len(CONTENT), len(CONTENT)) and seen == sorted(seen)
    assert stat.S_IMODE(first.path.stat().st_mode) == 0o444
    assert first.path.parent.stat().st_mode & 0o066 == 0
    record = first.record
    assert (record.sha256, record.verified, record.format, record.virtual_size) == (SHA256, "checksum", "raw", 3 << 20)
    again = fetch(url.replace("disk", "elsewhere"), SHA256.upper())
    assert not again.new and again.record == record
    assert len(server.asked) == 1
    assert not list(first.path.parent.glob(".new-*"))


def test_what_breaks_off_goes_on_where_it_was(server: Server, cache: Path) -> None:
    url = server.put("disk.raw", CONTENT, breaks_after=[1 << 20, 1 << 20, None])
    told: list[str] = []
    assert fetch(url, told=told.append).path.read_bytes() == CONTENT
    assert [asked.range for asked in server.asked] == [None, "bytes=1048576-", "bytes=2097152-"]
    assert [asked.if_range for asked in server.asked] == [None, '"1"', '"1"']
    assert told == [f"{url} breaks off: {3 << 20} bytes were promised, {n << 20} came; trying again" for n in (1, 2)]


def test_the_next_command_goes_on_too(server: Server, cache: Path) -> None:
    url = server.put("disk.raw", CONTENT, breaks_after=[1 << 20, 0])
    with pytest.raises(ImageError, match=f"breaks off: {3 << 20} bytes were promised, {1 << 20} came"):
        fetch(url, tries=2)
    kept = find_image(entry_of("", SHA256))
    assert kept and (kept.state, kept.size, kept.record) == ("partial", 1 << 20, None)
    server.files["disk.raw"].breaks_after = []
    assert fetch(url).path.read_bytes() == CONTENT
    assert server.asked[-1].range == "bytes=1048576-"


def test_a_server_that_ignores_ranges_begins_anew(server: Server, cache: Path) -> None:
    url = server.put("disk.raw", CONTENT, ranges=False, breaks_after=[1 << 20, None])
    assert fetch(url).path.read_bytes() == CONTENT
    assert [asked.status for asked in server.asked] == [200, 200]


def test_one_that_ignores_ranges_and_always_breaks_off_is_given_up(server: Server, cache: Path) -> None:
    url = server.put("disk.raw", CONTENT, ranges=False, breaks_after=[1 << 20])
    with pytest.raises(ImageError, match="breaks off"):
        fetch(url, tries=3)
    assert len(server.asked) == 4


def test_a_file_that_changed_meanwhile_begins_anew(server: Server, cache: Path) -> None:
    server.put("disk.raw", bytes(3 << 20), breaks_after=[1 << 20, 0])
    url = f"{server.url}/disk.raw"
    with pytest.raises(ImageError, match="breaks off"):
        fetch(url, tries=1)
    server.put("disk.raw", CONTENT, etag='"2"')
    assert fetch(url).path.read_bytes() == CONTENT
    assert server.asked[-1] == server.asked[-1].__class__("disk.raw", "bytes=1048576-", '"1"', 200)


def test_a_change_that_the_server_does_not_tell_is_found_by_the_checksum(server: Server, cache: Path) -> None:
    server.put("disk.raw", bytes(3 << 20), etag="", breaks_after=[1 << 20, 0])
    url = f"{server.url}/disk.raw"
    with pytest.raises(ImageError, match="breaks off"):
        fetch(url, tries=1)
    server.put("disk.raw", CONTENT, etag="")
    told: list[str] = []
    assert fetch(url, told=told.append).path.read_bytes() == CONTENT
    assert told == [f"{url}: what had come before is of another file: fetching it anew"]
    assert [(asked.range, asked.if_range) for asked in server.asked[-2:]] == [("bytes=1048576-", None), (None, None)]


def test_what_was_whole_and_has_changed_since_begins_anew(server: Server, cache: Path) -> None:
    """As after a kill in the same moment, for a user who may not write to such a file."""
    url = server.put("disk.raw", CONTENT, etag='"2"')
    entry = cache / entry_of("", SHA256)
    entry.mkdir(mode=0o700, parents=True)
    cache.chmod(0o700)
    (entry / PARTIAL).write_bytes(bytes(3 << 20))
    (entry / PARTIAL).chmod(0o444)
    (entry / "partial.json").write_text(f'{{"url": "{url}", "total": {4 << 20}, "validator": "\\"1\\""}}')
    first = (entry / PARTIAL).stat().st_ino
    opened = (entry / PARTIAL).open("rb")
    with opened:
        assert fetch(url).path.stat().st_ino != first


def test_what_has_come_whole_is_not_fetched_again(server: Server, cache: Path) -> None:
    """As after a kill between the last byte and the image's name."""
    url = server.put("disk.raw", CONTENT)
    entry = fetch(url).path.parent
    (entry / "image").chmod(0o600)
    notes = f'{{"url": "{url}", "total": {3 << 20}, "validator": "\\"1\\""}}'
    (entry / "image").rename(entry / PARTIAL)
    (entry / "partial.json").write_text(notes)
    assert find_image(entry.name).state == "partial"  # type: ignore[union-attr]
    assert fetch(url).new
    assert server.asked[-1].status == 416


def test_a_server_that_stalls_is_left(server: Server, cache: Path) -> None:
    url = server.put("disk.raw", CONTENT, stalls_after=1 << 20)
    with pytest.raises(ImageError, match=r"the server says nothing for 0.3 s"):
        fetch(url, stall_limit=0.3, tries=0)
    assert find_image(entry_of("", SHA256)).size == 1 << 20  # type: ignore[union-attr]


def test_a_server_that_does_not_hang_up_is_not_waited_for(server: Server, cache: Path) -> None:
    told: list[str] = []
    assert fetch(server.put("disk.raw", CONTENT, stalls_after=len(CONTENT)), told=told.append, stall_limit=60).new
    assert server.stalled.is_set() and told == []


def test_a_length_that_lies_is_told(server: Server, cache: Path) -> None:
    too_long = server.put("long.raw", CONTENT, promised=4 << 20)
    with pytest.raises(ImageError, match=f"breaks off: {4 << 20} bytes were promised, {3 << 20} came") as caught:
        fetch(too_long, tries=2)
    assert "the server's length is wrong, or the file is cut there" in caught.value.hint
    too_short = server.put("short.raw", CONTENT, promised=1 << 20)
    with pytest.raises(ImageError, match="has other bytes than the SHA-256 that was given says"):
        fetch(too_short)
    checksums = server.put("CHECKSUM", f"# short.raw: {3 << 20} bytes\nSHA256 (short.raw) = {SHA256}\n".encode())
    with pytest.raises(
        ImageError, match=f"the publisher says that it has {3 << 20} bytes, the server promises 1048576"
    ):
        fetch(too_short, "", checksums=checksums)
    unsaid = server.put("unsaid.raw", CONTENT, length_said=False)
    with pytest.raises(ImageError, match=r"does not say how long it is"):
        fetch(unsaid)
    endless = server.put("endless.raw", b"x", promised=1 << 50)
    with pytest.raises(ImageError, match=r"wanted an image of at most 128 GiB"):
        fetch(endless)


def test_other_bytes_are_refused_and_gone(server: Server, cache: Path) -> None:
    other = CONTENT[:-1] + b"!"
    url = server.put("disk.raw", other)
    with pytest.raises(ImageError, match=f"wanted sha256:{SHA256}, found sha256:{hashlib.sha256(other).hexdigest()}"):
        fetch(url)
    assert list_images() == []
    assert len(server.asked) == 1


def test_no_space_is_told_before_anything_is_written(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.put("disk.raw", CONTENT)
    real = os.statvfs
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result([*real(path)[:4], 1, *real(path)[5:]]))
    with pytest.raises(ImageError, match=r"no space for it in .*: wanted 3 MiB, 0 MiB are free"):
        fetch(url)
    assert list_images() == []


@pytest.mark.parametrize(
    ("status", "words"),
    [(404, "is not there (404)"), (403, "the server answers 403 Forbidden"), (503, "the server answers 503")],
)
def test_an_answer_without_the_file_is_told(server: Server, cache: Path, status: int, words: str) -> None:
    url = server.put("disk.raw", CONTENT, status=status)
    with pytest.raises(ImageError) as caught:
        fetch(url, tries=2)
    assert words in caught.value.message
    # What may pass is tried again.
    assert len(server.asked) == (2 if status >= 500 else 1)


def test_no_network_is_told(cache: Path) -> None:
    with pytest.raises(ImageError, match=r"no address of host\.invalid can be found") as caught:
        fetch("http://host.invalid/disk.raw")
    assert "--mirror" in caught.value.hint
    with pytest.raises(ImageError, match=r"127\.0\.0\.1 refuses the connection"):
        fetch("http://127.0.0.1:1/disk.raw", tries=0)


def test_a_redirection_is_followed_to_another_web_server_alone(server: Server, cache: Path) -> None:
    target = server.put("there.raw", CONTENT)
    url = server.put("here.raw", b"", status=302, location=target)
    assert fetch(url).record.source == url
    elsewhere = server.put("file.raw", b"", status=302, location="file:///etc/passwd")
    remove_image(entry_of("", SHA256))
    with pytest.raises(ImageError, match="302"):
        fetch(elsewhere)
    for_ever = server.put("round.raw", b"", status=302, location=f"{server.url}/round.raw")
    with pytest.raises(ImageError, match="302"):
        fetch(for_ever)


@pytest.mark.parametrize(
    ("image", "sha256", "words"),
    [
        ("https://x/disk.raw", "", "nothing vouches for https://x/disk.raw"),
        ("https://x/disk.raw", "00", "wanted a SHA-256, 64 hexadecimal digits, found '00'"),
        ("https://me:secret@x/disk.raw", SHA256, "wanted an http(s) URL without a password"),
        ("file:///etc/passwd", SHA256, "wanted an http(s) URL without a password"),
        ("debain-13", "", "no image 'debain-13' in the catalogue; did you mean 'debian-13'?"),
        ("sles-15-sp7", "", "no image 'sles-15-sp7' in the catalogue"),
    ],
)
def test_what_can_t_be_fetched_is_refused(cache: Path, image: str, sha256: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        fetch(image, sha256)
    assert words in caught.value.message
    assert caught.value.hint or "password" in words
    assert not cache.exists()
