"""What a profile names is read without waiting, and only where it ends: FIFOs, sockets and devices are refused."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
from pathlib import Path

import pytest

from sevlaunch.opening import open_given, open_regular
from tests.conftest import HOSTS, Command

KINDS = {"fifo": "a FIFO", "socket": "a socket", "device": "a character device"}
# Well below what waiting for ever takes, well above what a busy machine needs for a look at a profile.
LIMIT = 60.0


def make(kind: str, file: Path) -> None:
    """A file of the kind at ``file``."""
    if kind == "fifo":
        os.mkfifo(file)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(file))
    elif kind == "device":
        file.symlink_to("/dev/zero")
    else:
        raise AssertionError(kind)


@pytest.mark.parametrize("kind", KINDS)
def test_another_kind_of_file_is_refused_by_its_name(kind: str, base: Path) -> None:
    make(kind, base / "file")
    (base / "link").symlink_to("file")
    for path in (base / "file", base / "link"):
        for opened in (open_regular, open_given):
            with pytest.raises(OSError, match=f"it is {KINDS[kind]}, and no regular file"):
                opened(path)


def test_a_regular_file_is_read_also_through_a_link(base: Path) -> None:
    (base / "file").write_bytes(b"content")
    (base / "link").symlink_to("file")
    for path in (base / "file", base / "link"):
        with open_regular(path) as stream:
            assert stream.read() == b"content"


def test_a_descriptor_that_the_shell_hands_over_is_read(base: Path) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"content")
    os.close(writer)
    try:
        with open_given(f"/dev/fd/{reader}") as stream:
            assert stream.read() == b"content"
        with pytest.raises(OSError, match="it is a FIFO"):
            open_regular(f"/dev/fd/{reader}")
    finally:
        os.close(reader)


# A profile that names FILE, and the path of the value to blame.
NAMING = {
    "extends": "extends: FILE\n",
    "security.dh_cert": "security: {type: sev, dh_cert: FILE, session: FILE}\n",
    "security.session": "security: {type: sev, dh_cert: FILE, session: FILE}\n",
    "security.host_data": "security: {type: sev-snp, host_data: FILE}\n",
    "security.id_block": "security: {type: sev-snp, id_block: FILE, id_auth: FILE}\n",
    "security.id_auth": "security: {type: sev-snp, id_block: FILE, id_auth: FILE}\n",
    "initdata.file": "initdata: FILE\n",
    "security.guest_visible_workarounds": "security: {type: sev-snp, guest_visible_workarounds: FILE}\n",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", NAMING)
def test_check_does_not_wait_for_what_a_profile_names(path: str, kind: str, sevlaunch: Command, base: Path) -> None:
    make(kind, base / "file")
    profile = base / "profile.yaml"
    profile.write_text(NAMING[path].replace("FILE", str(base / "file")))
    problems = sevlaunch("check", profile, "--format", "json", check=1, limit=LIMIT).json[0]["problems"]
    (message,) = [problem["message"] for problem in problems if problem["path"] == path]
    assert f"it is {KINDS[kind]}, and no regular file" in message


def test_a_profile_may_come_through_a_pipe_but_not_from_a_fifo(sevlaunch: Command, base: Path) -> None:
    done = sevlaunch("check", "/dev/stdin", input="memory: 1G\n")
    assert done.stdout == "/dev/stdin: ok\n"
    os.mkfifo(base / "profile.yaml")
    assert "it is a FIFO" in sevlaunch("check", base / "profile.yaml", check=1, limit=LIMIT).stdout
    assert "it is a FIFO" in sevlaunch("render", base / "profile.yaml", check=3, limit=LIMIT).stderr


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("key", ["code", "vars", "image", "kernel", "initrd"])
def test_up_does_not_wait_for_firmware_and_boot_files(
    key: str, kind: str, qemu_binary: str, sevlaunch: Command, base: Path
) -> None:
    make(kind, base / "other")
    (base / "plain").write_bytes(bytes(1 << 20))
    files = dict.fromkeys(("code", "vars"), "plain")
    boot: dict[str, str] = {}
    if key in ("code", "vars"):
        files[key] = "other"
    elif key == "image":
        files = {"image": "other"}
    else:
        boot = {"kernel": "plain", key: "other"}
    document = {
        "name": "g",
        "memory": "64M",
        "accel": "tcg",
        "security": "none",
        "firmware": files,
        "boot": boot,
        "qemu": {"binary": qemu_binary},
    }
    (base / "profile.yaml").write_text(json.dumps(document))
    done = sevlaunch("up", base / "profile.yaml", check=4, limit=LIMIT)
    assert re.search(rf"{base}/other: is {KINDS[kind]}, and no regular file", done.stderr), done.stderr
    assert sevlaunch.left_behind() == []


def test_a_saved_host_is_no_fifo(sevlaunch: Command, base: Path) -> None:
    (base / "profile.yaml").write_text("memory: 1G\n")
    os.mkfifo(base / "host.json")
    done = sevlaunch("render", base / "profile.yaml", "--host", base / "host.json", check=4, limit=LIMIT)
    assert "it is a FIFO" in done.stderr
    with (HOSTS / "milan-qemu-11.1.json").open("rb") as stream:
        command = sevlaunch.argv("render", base / "profile.yaml", "--host", "/dev/stdin")
        subprocess.run(command, stdin=stream, env=sevlaunch.environment, stdout=subprocess.DEVNULL, check=True)
