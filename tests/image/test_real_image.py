"""A real Debian with cloud-init, from a web server that breaks off to a login, a restart, and a fresh start."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tests import needs
from tests.conftest import Command
from tests.guest.support import nothing_left, some_qemu
from tests.image.server import Server

# Under TCG it takes one to two minutes to a login.
LIMIT = 900.0

pytestmark = pytest.mark.soak


def test_from_a_url_to_a_login(sevlaunch: Command, server: Server) -> None:
    content = needs.debian_disk().read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    url = server.put("debian.qcow2", content, breaks_after=[50 << 20, 100 << 20, None])
    profile = sevlaunch.base / "web.yaml"
    document = {
        "memory": "1G",
        "cpus": 2,
        "accel": "tcg",
        "guest_agent": True,
        "disks": [{"image": url, "sha256": sha256, "size": "4G"}],
        "first_boot": {"hostname": "web", "user": "admin"},
        "networks": [{"type": "user", "ssh": "auto"}],
    }
    profile.write_text(json.dumps(document))
    limits = ("--wait-timeout", str(LIMIT))
    refused = sevlaunch("up", profile, "--offline", *some_qemu(), check=4)
    assert f"sevlaunch image fetch {url} --sha256 {sha256}" in refused.stderr
    started = sevlaunch("up", profile, "--wait", "ssh", "--wait", "cloud-init", *limits, *some_qemu(), limit=3 * LIMIT)
    assert started.stderr.count("breaks off") == 2 and "fetched, 222 MiB" in started.stderr
    assert [asked.range for asked in server.asked] == [None, f"bytes={50 << 20}-", f"bytes={150 << 20}-"]

    def run(*words: str) -> str:
        return sevlaunch("ssh", "web", "--", *words, limit=LIMIT).stdout

    assert run("hostname") == "web\n" and run("id", "-un") == "admin\n"
    assert run("sudo", "id", "-u") == "0\n"
    assert int(run("df", "-B1", "--output=size", "/").split()[1]) > 3 << 30
    assert sevlaunch("exec", "web", "--", "uname", "-s", limit=LIMIT).stdout == "Linux\n"
    run("touch", "kept")
    sevlaunch("restart", "web", "--wait", "ssh", *limits, limit=3 * LIMIT)
    assert run("ls") == "kept\n"
    sevlaunch("down", "web", "--now")
    sevlaunch("up", profile, "--fresh", "--offline", "--wait", "ssh", *limits, *some_qemu(), limit=3 * LIMIT)
    assert run("ls") == ""
    sevlaunch("down", "web", "--now")
    [kept] = sevlaunch("image", "ls", "--format", "json").json
    assert kept["state"] == "whole" and kept["sha256"] == sha256
    with Path(kept["path"]).open("rb") as image:
        assert hashlib.file_digest(image, "sha256").hexdigest() == sha256
    assert len(server.asked) == 3
    nothing_left(sevlaunch)
