"""A distribution's cloud image as people start it: fetched from the web, a user of one's own, SSH, an agent, a reboot.

A web server on loopback has a small Debian: at a URL of its own, and in the place of Debian's own image.
Under TCG a boot takes one to five minutes.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import needs
from tests.conftest import PROFILES, ROOT, Command
from tests.guest.support import JSON, nothing_left, some_qemu
from tests.image.server import Server, mirror, serving

LIMIT = 900.0
WAIT = ("--wait", "ssh", "--wait", "cloud-init", "--wait-timeout", str(LIMIT))
# After so many bytes of the first answer the connection is cut.
CUT = 50 << 20

pytestmark = pytest.mark.soak


@pytest.fixture
def server() -> Iterator[Server]:
    """A web server on loopback."""
    with serving() as running:
        yield running


@pytest.fixture
def debian(sevlaunch: Command) -> Command:
    """The command, with a cache of its own."""
    needs.program("ssh", "openssh-client")
    sevlaunch.environment |= {
        "XDG_CACHE_HOME": str(sevlaunch.base / "cache"),
        "SEVLAUNCH_TEST_CACHE": str(Path.home() / ".cache"),
        "HOME": str(sevlaunch.base),
    }
    return sevlaunch


@pytest.fixture
def mirrored(debian: Command, server: Server) -> Command:
    """The same with a mirror, which has the small Debian as Debian's own image."""
    debian.environment["SEVLAUNCH_IMAGE_MIRROR"] = mirror(server, "debian-13", needs.debian_disk().read_bytes())
    return debian


def profile_of(command: Command, url: str, sha256: str) -> Path:
    """The profile of Debian with the image of a URL, in an emulated processor."""
    file = command.base / "debian.yaml"
    disk = {"image": url, "sha256": sha256, "size": "4G"}
    file.write_text(
        json.dumps({"extends": str(PROFILES / "debian.yaml"), "accel": "tcg", "guest_agent": True, "disks": [disk]})
    )
    return file


def test_an_image_of_the_web_is_fetched_booted_and_worked_in(debian: Command, server: Server) -> None:
    content = needs.debian_disk().read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    url = server.put("web.qcow2", content, breaks_after=[CUT, None])
    profile = profile_of(debian, url, sha256)
    started = ("up", profile, *some_qemu())
    assert f"sevlaunch image fetch {url} --sha256 {sha256}" in debian(*started, "--offline", check=4).stderr
    told = debian(*started, *WAIT, limit=3 * LIMIT).stderr
    assert f"{url} breaks off: {len(content)} bytes were promised, {CUT} came; trying again" in told
    assert f"{url}: fetched, " in told

    def typed(*words: str) -> str:
        return debian("ssh", "debian", *words, limit=LIMIT).stdout

    assert "cloud" in typed("--", "uname", "-r")
    assert typed("--", "cloud-init", "status") == "status: done\n"
    assert typed("sudo id -u; id -un") == "0\nadmin\n"
    assert int(typed("df --output=size --block-size=1M / | tail -1")) > 3500, "the disk has grown"
    assert debian("exec", "debian", "--", "/bin/cat", "/etc/hostname", limit=LIMIT).stdout == "debian\n"
    assert debian("status", "debian", *JSON).json["ssh"]["user"] == "admin"
    given, back = debian.base / "a b", debian.base / "back"
    given.write_text("both ways\n")
    debian("cp", given, "debian:c d", limit=LIMIT)
    debian("cp", "debian:c d", back, limit=LIMIT)
    assert back.read_text() == "both ways\n"
    [known] = (debian.state / "debian").glob("*/known_hosts")
    key = known.read_text()
    # What it wrote is kept, its host key with it.
    debian("restart", "debian", "--timeout", str(LIMIT), *WAIT, limit=4 * LIMIT)
    assert typed("cat 'c d'") == "both ways\n"
    assert known.read_text() == key
    debian("down", "debian", "--now")
    # The system that begins anew has neither.
    debian(*started, "--offline", "--fresh", *WAIT, limit=3 * LIMIT)
    assert typed("ls") == ""
    assert known.read_text() != key
    debian("down", "debian", "--now")
    nothing_left(debian)
    [image] = debian("image", "ls", *JSON).json
    assert hashlib.sha256(Path(image["path"]).read_bytes()).hexdigest() == image["sha256"] == sha256
    assert [asked.range for asked in server.asked] == [None, f"bytes={CUT}-"]
    debian("rm", "debian")
    assert list(debian.state.iterdir()) == []


def test_cloud_inits_own_error_is_told(mirrored: Command) -> None:
    options = ("--set", "first_boot.user_data={bootcmd: [[/no/such/program]]}", "--wait", "cloud-init")
    told = mirrored(
        "up", PROFILES / "debian.yaml", *some_qemu(), *options, "--wait-timeout", str(LIMIT), check=1, limit=2 * LIMIT
    )
    assert "cloud-init failed in debian" in told.stderr
    assert "bootcmd" in told.stderr
    nothing_left(mirrored)


def test_the_example_runs(mirrored: Command) -> None:
    mirrored("image", "fetch", "debian-13", limit=300)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "--noconftest",
            ROOT / "examples/test_debian.py",
        ],
        cwd=mirrored.base,
        env={**os.environ, **mirrored.environment},
        capture_output=True,
        text=True,
        timeout=4 * LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
