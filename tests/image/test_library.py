"""Fetching, listing and removing from programs, with an event loop and without."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest

from sevlaunch import api, sync
from sevlaunch.image_reference import entry_of
from tests.conftest import wait_until
from tests.image.server import Server

CONTENT = b"a disk" * 50000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


async def test_with_an_event_loop(server: Server, cache: Path) -> None:
    url = server.put("disk.img", CONTENT)
    fetched = await api.fetch_image(url, SHA256)
    assert fetched.new and fetched.path == cache / entry_of(url, SHA256) / "image"
    assert [one.record for one in api.list_images()] == [fetched.record]
    loaded = api.Profile.loads(f"name: a\ndisks: [{{image: '{url}', sha256: {SHA256}}}]\n")
    assert await api.fetch_missing([loaded], offline=True) == []
    assert api.remove_image(fetched.entry).state == "whole"
    with pytest.raises(api.HostError):
        await api.fetch_missing([loaded], offline=True)
    [again] = await api.fetch_missing([loaded])
    assert again.new


async def test_a_cancellation_ends_it_and_keeps_what_has_come(server: Server, cache: Path) -> None:
    url = server.put("disk.img", CONTENT, stalls_after=1000)
    task = asyncio.create_task(api.fetch_image(url, SHA256))
    await asyncio.to_thread(wait_until, lambda: [one.size for one in api.list_images()] == [1000], 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    server.files["disk.img"].stalls_after = None
    assert (await api.fetch_image(url, SHA256)).new and server.asked[-1].range == "bytes=1000-"


def test_without_one(server: Server, cache: Path) -> None:
    url = server.put("disk.img", CONTENT)
    seen: list[int] = []
    reports = sync.FetchReports(progress=lambda done, total: seen.append(done))
    assert sync.fetch_image(url, SHA256, reports=reports).new and seen[-1] == len(CONTENT)
    loaded = sync.Profile.loads(f"name: a\ndisks: [{{image: '{url}', sha256: {SHA256}}}]\n")
    assert sync.fetch_missing([loaded]) == []
    assert [one.state for one in sync.list_images()] == ["whole"]
