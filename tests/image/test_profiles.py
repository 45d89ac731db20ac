"""Images that a profile names by name or URL: in the plan before they are fetched, and fetched by ``up``."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from sevlaunch.errors import HostError, ProfileError
from sevlaunch.flows.images import fetch_missing, missing_images
from sevlaunch.host.model import Host
from sevlaunch.image.fetch import fetch_image
from sevlaunch.image.proof import FetchOptions
from sevlaunch.image_reference import entry_of, is_name, is_url
from sevlaunch.plan.resolve import resolve
from sevlaunch.profile.loader import loads
from tests import needs
from tests.conftest import HOSTS, Command
from tests.guest.support import nothing_left, some_qemu
from tests.image.server import Server

ANY = "ab" * 32


@pytest.fixture
def image(base: Path) -> bytes:
    """A qcow2 image."""
    command = [needs.program("qemu-img", "qemu-utils"), "create", "-q", "-f", "qcow2", str(base / "made"), "8M"]
    subprocess.run(command, check=True)
    return (base / "made").read_bytes()


def profile_of(command: Command, **disk: Any) -> Path:
    """A profile of a plain guest ``g`` with one disk."""
    file = command.base / "g.yaml"
    file.write_text(json.dumps({"accel": "tcg", "memory": "64M", "disks": [disk]}))
    return file


def test_a_name_a_url_and_a_file_are_told_apart() -> None:
    assert all(map(is_name, ("debian-13", "ubuntu-24.04", "opensuse-leap-15.6", "arch")))
    files = ("./debian-13", "a/b", "noble.img", "x.qcow2", "Debian-13", "/x", "..", "", f"sha256-{ANY}")
    assert not any(map(is_name, files))
    assert is_url("https://x/y.img") and not is_url("https://me:secret@x/y") and not is_url("https://x/")
    assert not is_url("file:///etc/passwd")
    assert entry_of("https://x/y", ANY.upper()) == entry_of("debian-13", ANY) == f"sha256-{ANY}"


@pytest.mark.parametrize(
    ("disk", "message"),
    [
        ("{image: https://me:secret@x/y.img}", "wanted a URL of a file, without a password"),
        ("{image: 'nbd:unix:/x'}", "found a nbd source"),
        ("{image: debian-13, sha256: xyz}", "wanted 64 hexadecimal digits, found 'xyz'"),
        ("{image: 'https://x/y.img'}", "takes sha256, what it has to be"),
    ],
)
def test_what_refers_to_nothing_is_refused_where_it_stands(disk: str, message: str) -> None:
    with pytest.raises(ProfileError) as caught:
        loads(f"name: a\ndisks:\n- {disk}\n", file="a.yaml")
    [problem] = caught.value.problems
    assert message in problem.message and problem.location.startswith("a.yaml:3:")


@pytest.mark.parametrize(
    ("disk", "entry", "command"),
    [
        ("image: debian-13", "debian-13", "debian-13"),
        (f"image: debian-13, sha256: {ANY}", f"sha256-{ANY}", f"debian-13 --sha256 {ANY}"),
        (f"image: https://x/y.img, sha256: {ANY}", f"sha256-{ANY}", f"https://x/y.img --sha256 {ANY}"),
    ],
)
def test_the_plan_needs_no_image_and_says_how_to_get_it(disk: str, entry: str, command: str) -> None:
    host = Host.load(HOSTS / "milan-qemu-10.0.json")
    plan = resolve(loads(f"name: a\ndisks: [{{{disk}, size: 20G}}]\n"), host)
    [needed] = [file for file in plan.needs.files if file.what == "disk"]
    assert needed.path == f"/var/cache/sevlaunch/images/{entry}/image" and not needed.write
    assert needed.remedy == f"fetch it: sevlaunch image fetch {command}"
    [disk_plan] = plan.storage.disks
    assert disk_plan.image.format.value == "qcow2" and disk_plan.image.overlay
    read_only = resolve(loads(f"name: a\ndisks: [{{{disk}, read_only: true}}]\n"), host)
    assert read_only.storage.disks[0].image.overlay is None


def test_up_fetches_what_is_missing_once_and_says_so(sevlaunch: Command, server: Server, image: bytes) -> None:
    url, sha256 = server.put("disk.img", image), hashlib.sha256(image).hexdigest()
    profile = profile_of(sevlaunch, image=url, sha256=sha256, size="16M")
    # Before it is there.
    assert f"images/sha256-{sha256}/image" in sevlaunch("render", profile, *some_qemu()).stdout
    assert sevlaunch("check", profile).stdout == f"{profile}: ok\n"
    refused = sevlaunch("up", profile, "--offline", *some_qemu(), check=4)
    assert f"disks.0.image: {url} is not fetched yet (fetch it: sevlaunch image fetch {url}" in refused.stderr
    assert server.asked == []
    started = sevlaunch("up", profile, "--paused", *some_qemu())
    assert f"sevlaunch: fetching {url}, which is not here yet\n" in started.stderr
    assert f"sevlaunch: {url}: fetched, 1 MiB, verified by a checksum alone" in started.stderr
    sevlaunch("down", "g", "--now")
    again = sevlaunch("up", profile, "--offline", "--paused", *some_qemu())
    assert "fetch" not in again.stderr and len(server.asked) == 1
    sevlaunch("down", "g", "--now")
    # What the guest wrote is nothing without it.
    refused = sevlaunch("image", "rm", f"sha256-{sha256}", check=4)
    assert f"disks of g stand on sha256-{sha256}" in refused.stderr and "sevlaunch rm g" in refused.stderr
    [kept] = sevlaunch("image", "ls", "--format", "json").json
    assert kept["state"] == "whole" and hashlib.sha256(Path(kept["path"]).read_bytes()).hexdigest() == sha256
    sevlaunch("image", "rm", f"sha256-{sha256}", "--force")
    nothing_left(sevlaunch)


def test_an_image_by_name_for_several_guests(sevlaunch: Command, server: Server, image: bytes) -> None:
    server.put("disk.img", image)
    server.put("SUMS", f"{hashlib.sha256(image).hexdigest()}  disk.img\n".encode())
    own = sevlaunch.base / "own.toml"
    own.write_text(f'[small]\ntitle = "Small"\nimage = "{server.url}/disk.img"\nchecksums = "SUMS"\nuser = "root"\n')
    profile = profile_of(sevlaunch, image="small")
    for refused in (
        sevlaunch("check", profile, check=1).stdout,
        sevlaunch("up", profile, *some_qemu(), check=3).stderr,
    ):
        assert f"{profile}:1:" in refused and "disks.0.image: no image 'small' in the catalogue" in refused
    sevlaunch.environment["SEVLAUNCH_IMAGE_CATALOGUE"] = str(own)
    assert sevlaunch("check", profile).stdout == f"{profile}: ok\n"
    sevlaunch("up", profile, "--count", "2", "--paused", *some_qemu())
    sevlaunch("down", "--all", "--now")
    assert [asked.path for asked in server.asked] == ["SUMS", "disk.img"]
    unit = sevlaunch("unit", profile, *some_qemu()).stdout
    assert " --offline" in unit
    nothing_left(sevlaunch)


def test_restart_fetches_what_its_profile_names_by_now_and_before_the_guest_is_taken_down(
    sevlaunch: Command, server: Server, image: bytes
) -> None:
    url, sha256 = server.put("disk.img", image), hashlib.sha256(image).hexdigest()
    (sevlaunch.base / "first.raw").write_bytes(bytes(1 << 20))
    profile = profile_of(sevlaunch, path="first.raw")
    pid = sevlaunch("up", profile, "--format", "json", *some_qemu()).json["pid"]
    profile_of(sevlaunch, image=url, sha256="ab" * 32)
    refused = sevlaunch("restart", "g", "--now", check=4)
    assert "has other bytes than the SHA-256 that was given says" in refused.stderr
    profile_of(sevlaunch, image=url, sha256=sha256)
    refused = sevlaunch("restart", "g", "--now", "--offline", check=4)
    assert f"{url} is not fetched yet (fetch it: sevlaunch image fetch {url}" in refused.stderr
    assert sevlaunch("status", "g", "--format", "json").json["pid"] == pid
    again = sevlaunch("restart", "g", "--now")
    assert f"sevlaunch: {url}: fetched, 1 MiB, verified by a checksum alone" in again.stderr
    assert any("disk0.qcow2" in word for word in sevlaunch("status", "g", "--format", "json").json["command"])
    assert "fetch" not in sevlaunch("restart", "g", "--now", "--offline").stderr
    sevlaunch("down", "g", "--now")
    nothing_left(sevlaunch)


def test_the_user_of_an_image_is_who_its_catalogue_named_when_it_was_fetched(
    sevlaunch: Command, server: Server, image: bytes
) -> None:
    server.put("disk.img", image)
    server.put("SUMS", f"{hashlib.sha256(image).hexdigest()}  disk.img\n".encode())
    own = sevlaunch.base / "own.toml"
    own.write_text(f'[small]\ntitle = "Small"\nimage = "{server.url}/disk.img"\nchecksums = "SUMS"\nuser = "ops"\n')
    sevlaunch("image", "fetch", "small", "--catalogue", own)
    profile = profile_of(sevlaunch, image="small")
    seed = ("--set", "networks=[{type: user, ssh: auto}]", "--set")
    started = sevlaunch("up", profile, "--paused", *seed, "first_boot={user: null}", "--format", "json", *some_qemu())
    assert started.json["ssh"]["user"] == "ops"
    sevlaunch("down", "g", "--now")
    started = sevlaunch("up", profile, "--paused", *seed, "first_boot=true", "--format", "json", *some_qemu())
    assert started.json["ssh"]["user"] == "admin"
    sevlaunch("down", "g", "--now")
    nothing_left(sevlaunch)


def test_a_fetch_that_fails_starts_nothing(sevlaunch: Command, server: Server, image: bytes) -> None:
    url = server.put("disk.img", image + b"!")
    profile = profile_of(sevlaunch, image=url, sha256=hashlib.sha256(image).hexdigest())
    refused = sevlaunch("up", profile, *some_qemu(), check=4)
    assert "has other bytes than the SHA-256 that was given says" in refused.stderr
    assert not sevlaunch.runtime.exists() or not list(sevlaunch.runtime.iterdir())


def test_only_what_is_missing_is_asked_for(server: Server, cache: Path, image: bytes) -> None:
    url, sha256 = server.put("disk.img", image), hashlib.sha256(image).hexdigest()
    text = f"name: a\ndisks: [{{image: ./x.img}}, {{image: '{url}', sha256: {sha256}}}, {{path: y.raw}}]\n"
    loaded = [loads(text), loads(text)]
    [missing] = missing_images(loaded)
    assert (missing.image, missing.sha256, missing.path) == (url, sha256, "disks.1.image")
    with pytest.raises(HostError, match="--offline fetches none"):
        fetch_missing(loaded, offline=True)
    [fetched] = fetch_missing(loaded)
    assert fetched.new and not missing_images(loaded) and not fetch_missing(loaded, offline=True)
    fetched.path.unlink()
    assert len(missing_images(loaded)) == 1
    assert fetch_image(url, sha256, options=FetchOptions(tries=1)).new
