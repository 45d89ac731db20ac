"""The commands image fetch, ls and rm: what they print, for people and for programs."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
from pathlib import Path

from sevlaunch.cli.complete import cached_images, catalogue_names
from sevlaunch.image_reference import entry_of
from tests.conftest import ROOT, Command, wait_until
from tests.image.server import Server, mirror
from tests.terminal import on_a_terminal

CONTENT = os.urandom(2 << 20)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
ENTRY = entry_of("", SHA256)
JSON = ("--format", "json")


def test_fetch_list_and_remove(sevlaunch: Command, base: Path, server: Server) -> None:
    url = server.put("disk.raw", CONTENT)
    fetched = sevlaunch("image", "fetch", url, "--sha256", SHA256)
    path = base / f"cache/sevlaunch/images/{ENTRY}/image"
    assert fetched.stderr == ""
    assert fetched.stdout == (
        f"{url}: fetched, 2 MiB, verified by a checksum alone (the SHA-256 that was given)\n  {path}\n"
        f"  in a profile: disks: [{{image: '{url}', sha256: {SHA256}}}]\n"
    )
    assert ": is there, since 20" in sevlaunch("image", "fetch", url, "--sha256", SHA256).stdout
    found = sevlaunch("image", "fetch", url, "--sha256", SHA256, *JSON).json
    assert (found["path"], found["new"], found["verified"], found["size"]) == (str(path), False, "checksum", 2 << 20)
    heading, row = sevlaunch("image", "ls").stdout.splitlines()
    assert heading.split() == ["IMAGE", "STATE", "SIZE", "VERIFIED", "FETCHED", "FROM"]
    assert row.split()[:5] == [ENTRY, "whole", "2", "MiB", "checksum"] and row.endswith(url)
    [listed] = sevlaunch("image", "ls", *JSON).json
    assert (listed["entry"], listed["state"], listed["sha256"]) == (ENTRY, "whole", SHA256)
    refused = sevlaunch("image", "rm", "nothing", ENTRY, *JSON, check=4)
    assert [one["entry"] for one in refused.json] == [ENTRY] and not path.parent.exists()
    assert json.loads(refused.stderr)["error"]["kind"] == "ImageError"
    assert sevlaunch("image", "ls", *JSON).json == []


def test_the_catalogue_is_listed_and_completed(sevlaunch: Command, cache: Path, server: Server) -> None:
    listed = sevlaunch("image", "ls", "--known").stdout
    assert "debian-13 " in listed and " cloud-user " in listed
    assert sevlaunch("image", "ls", "--known", *JSON).json["arch"]["user"] == "arch"
    assert catalogue_names("debian-") == ["debian-12", "debian-13"]
    assert cached_images("") == []
    sevlaunch("image", "fetch", server.put("x.raw", CONTENT), "--sha256", SHA256)
    assert cached_images("sha256-") == [ENTRY]


def test_the_guide(sevlaunch: Command, server: Server) -> None:
    """Every command of docs/images.md, and the catalogue and the profile in it."""
    text = (ROOT / "docs/images.md").read_text()
    sevlaunch.environment["SEVLAUNCH_IMAGE_MIRROR"] = mirror(server, "debian-13", CONTENT)
    commands = re.findall(r"^\$ sevlaunch (.*)", text, re.MULTILINE)
    assert len(commands) == 4
    for command in commands:
        sevlaunch(*command.split())
    [toml], [yaml] = (re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL) for kind in ("toml", "yaml"))
    (sevlaunch.base / "own.toml").write_text(toml)
    known = sevlaunch("image", "ls", "--known", "--catalogue", sevlaunch.base / "own.toml", *JSON).json
    assert known["our-base"]["user"] == "admin"
    (sevlaunch.base / "g.yaml").write_text(yaml)
    sevlaunch("check", sevlaunch.base / "g.yaml")


def test_errors_are_told_with_the_next_step(sevlaunch: Command, server: Server) -> None:
    refused = sevlaunch("image", "fetch", f"{server.url}/x.raw", "--sha256", SHA256, check=4)
    assert refused.stderr == (
        f"sevlaunch: {server.url}/x.raw is not there (404)\nhint: has it moved? name its URL, or another mirror\n"
    )
    assert sevlaunch("image", "fetch", f"{server.url}/x.raw", check=2).stderr.startswith("sevlaunch: nothing vouches")
    assert "add --checksums URL" in sevlaunch("image", "fetch", "arch", "--signature", "https://x/y", check=2).stderr
    broken = server.put("cut.raw", CONTENT, breaks_after=[1 << 20, None])
    noted = sevlaunch("image", "fetch", broken, "--sha256", SHA256, *JSON)
    assert json.loads(noted.stderr)["note"].endswith("1048576 came; trying again")


def test_ctrl_c_ends_a_fetch_and_keeps_what_has_come(sevlaunch: Command, base: Path, server: Server) -> None:
    url = server.put("disk.raw", CONTENT, stalls_after=1 << 20)
    process = sevlaunch.start("image", "fetch", url, "--sha256", SHA256)
    partial = base / f"cache/sevlaunch/images/{ENTRY}/partial"
    wait_until(lambda: partial.exists() and partial.stat().st_size == 1 << 20, 30, "the first half")
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert process.communicate()[1] == "sevlaunch: interrupted\n"
    server.files["disk.raw"].stalls_after = None
    sevlaunch("image", "fetch", url, "--sha256", SHA256)
    assert server.asked[-1].range == f"bytes={1 << 20}-"


def test_a_terminal_is_shown_how_it_gets_on(sevlaunch: Command, server: Server) -> None:
    url = server.put("disk.raw", CONTENT)
    shown = on_a_terminal(sevlaunch, "image", "fetch", url, "--sha256", SHA256, stream="stderr")
    assert f"\r{url}: 100 % of 2 MiB" in shown and shown.endswith("\r\x1b[K")
    assert ": is there, since 20" in sevlaunch("image", "fetch", url, "--sha256", SHA256).stdout
