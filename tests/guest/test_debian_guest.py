"""A distribution's cloud image as people start it: fetched by its name, a user of one's own, SSH, an agent, a reboot.

A mirror on loopback has a small Debian in the place of Debian's own image. Under TCG a boot takes one to five minutes.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests import needs
from tests.conftest import PROFILES, ROOT, Command
from tests.guest.support import JSON, nothing_left, some_qemu

LIMIT = 900.0
READY = ("--wait", "ssh", "--wait", "cloud-init", "--wait-timeout", str(LIMIT))
# Where Debian publishes the image that the catalogue calls debian-13.
FOLDER = "cloud.debian.org/images/cloud/trixie/latest"
IMAGE = "debian-13-genericcloud-amd64.qcow2"

pytestmark = pytest.mark.soak


class Quiet(SimpleHTTPRequestHandler):
    """Says nothing of what it is asked."""

    def log_message(self, *_: object) -> None:
        """Not on standard error."""


@contextmanager
def mirror(folder: Path) -> Iterator[str]:
    """A web server on loopback that has the image as Debian's has it."""
    disk = needs.debian_disk()
    place = folder / FOLDER
    place.mkdir(parents=True)
    (place / IMAGE).symlink_to(disk)
    with disk.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha512").hexdigest()
    (place / "SHA512SUMS").write_text(f"{digest}  {IMAGE}\n")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def debian(sevlaunch: Command) -> Iterator[Command]:
    """The command, with a cache of its own and the mirror."""
    needs.program("ssh", "openssh-client")
    with mirror(sevlaunch.base / "mirror") as url:
        sevlaunch.environment |= {
            "XDG_CACHE_HOME": str(sevlaunch.base / "cache"),
            "SEVLAUNCH_TEST_CACHE": str(Path.home() / ".cache"),
            "SEVLAUNCH_IMAGE_MIRROR": url,
            "HOME": str(sevlaunch.base),
        }
        yield sevlaunch


def up(command: Command, *options: str) -> None:
    """Start Debian, and wait until its first boot is done."""
    profile = PROFILES / "debian.yaml"
    more = ("--set", "guest_agent=true", "--set", "disks.0.size=4G")
    command("up", profile, *some_qemu(), *READY, *more, *options, limit=3 * LIMIT)


def test_a_cloud_image_is_fetched_booted_and_worked_in(debian: Command) -> None:
    up(debian)
    (image,) = (debian.base / "cache/sevlaunch/images").glob("debian-13/image")
    before = hashlib.sha256(image.read_bytes()).hexdigest()
    assert "cloud" in debian("ssh", "debian", "--", "uname", "-r").stdout
    assert debian("ssh", "debian", "sudo id -u; id -un").stdout == "0\nadmin\n"
    size = int(debian("ssh", "debian", "df --output=size --block-size=1M / | tail -1").stdout)
    assert size > 3500, "the disk has grown"
    assert debian("exec", "debian", "--", "/bin/cat", "/etc/hostname").stdout == "debian\n"
    assert debian("status", "debian", *JSON).json["ssh"]["user"] == "admin"
    given, back = debian.base / "a b", debian.base / "back"
    given.write_text("both ways\n")
    debian("cp", given, "debian:c d")
    debian("cp", "debian:c d", back)
    assert back.read_text() == "both ways\n"
    [known] = (debian.state / "debian").glob("*/known_hosts")
    key = known.read_text()
    # What it wrote is kept, its host key with it.
    debian("restart", "debian", "--timeout", str(LIMIT), *READY, limit=4 * LIMIT)
    assert debian("ssh", "debian", "cat 'c d'").stdout == "both ways\n"
    assert known.read_text() == key
    debian("down", "debian", "--now")
    # The system that begins anew has neither.
    up(debian, "--offline", "--fresh")
    assert debian("ssh", "debian", "ls").stdout == ""
    assert known.read_text() != key
    debian("down", "debian", "--now")
    nothing_left(debian)
    assert hashlib.sha256(image.read_bytes()).hexdigest() == before


def test_cloud_inits_own_error_is_told(debian: Command) -> None:
    options = ("--set", "first_boot.user_data={bootcmd: [[/no/such/program]]}", "--wait", "cloud-init")
    told = debian(
        "up", PROFILES / "debian.yaml", *some_qemu(), *options, "--wait-timeout", str(LIMIT), check=1, limit=2 * LIMIT
    )
    assert "cloud-init failed in debian" in told.stderr
    assert "bootcmd" in told.stderr
    nothing_left(debian)


def test_the_example_runs(debian: Command) -> None:
    debian("image", "fetch", "debian-13", limit=300)
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
        cwd=debian.base,
        env={**os.environ, **debian.environment},
        capture_output=True,
        text=True,
        timeout=4 * LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
