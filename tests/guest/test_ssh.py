"""ssh and cp into a guest that runs an SSH server: the demo guest's, which takes the keys of its seed."""

from __future__ import annotations

import os
import pty
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from sevlaunch import sync
from sevlaunch.errors import GuestTimeout, HostError, SevlaunchError, UsageError
from sevlaunch.guest.record import Login, Record
from sevlaunch.guest.ssh import find_way, ssh_argv
from tests import needs
from tests.conftest import PROFILES, Command, Result
from tests.guest.support import JSON, PLAIN, finish, nothing_left, some_qemu

NAME = "demo"
BOOT_LIMIT = 300.0
# A folder whose name ssh's own configuration would take for something else.
STATE = 'st ate%h "x"'
SSH = ("--set", "networks=[{type: user, ssh: auto}]", "--set", "first_boot={user: admin, ssh_keys: own}")
WAIT = ("--wait", "ssh", "--wait-timeout", str(BOOT_LIMIT))


def up(command: Command, *options: str, limit: float = BOOT_LIMIT + 30) -> Result:
    """Start the demo guest with an SSH server, and wait for that."""
    return command("up", PROFILES / "demo.yaml", *some_qemu(), *SSH, *WAIT, *options, limit=limit)


@pytest.fixture(scope="module")
def guest() -> Iterator[Command]:
    """A guest that lets its user in, with a state folder of a name that is hard to quote."""
    needs.demo_ssh()
    base = Path(tempfile.mkdtemp(prefix="sl-", dir="/tmp"))
    command = Command(base)
    command.environment |= {"XDG_STATE_HOME": str(base / STATE), "HOME": str(base)}
    command.state = base / STATE / "sevlaunch"
    try:
        up(command)
        yield command
    finally:
        command("down", "--all", "--now", check=None)
        left = command.left_behind()
        shutil.rmtree(base)
    assert left == []


def known_hosts(command: Command) -> Path:
    """The file with the guest's host key."""
    [file] = (command.state / NAME).glob("*/known_hosts")
    return file


def test_a_command_runs_as_the_user_of_the_seed_and_its_exit_code_is_passed_on(guest: Command) -> None:
    assert re.match(r"\d+\.\d+\.", guest("ssh", NAME, "--", "uname", "-r").stdout)
    done = guest("ssh", NAME, "echo out; echo err >&2; echo $USER; exit 7", check=7)
    assert (done.stdout, done.stderr) == ("out\nadmin\n", "err\n")
    status = guest("status", NAME, *JSON).json
    assert status["ssh"]["user"] == "admin"
    assert f"port {status['ssh']['port']}: sevlaunch ssh demo" in guest("status", NAME).stdout


def test_words_arrive_as_they_are_and_none_is_an_option_of_ssh(guest: Command) -> None:
    words = ["a  b", "", "$HOME", "'", '"', "*", ";exit 3", "\\", "new\nline", "-v", "--raw"]
    printed = guest("ssh", NAME, "--", "printf", "<%s>", *words).stdout
    assert printed == "".join(f"<{word}>" for word in words)
    # Without a program, this would be ssh's own -V.
    assert "OpenSSH" not in guest("ssh", NAME, "--", "-V", check=None).stderr
    assert guest("ssh", NAME, "printf", "%s", "-l").stdout == "-l"


def test_a_command_reads_its_input_and_has_no_terminal_unless_there_is_one(guest: Command) -> None:
    given = "x" * 300_000
    assert guest("ssh", NAME, "md5sum", input=given).stdout == guest("ssh", NAME, "--", "md5sum", input=given).stdout
    assert guest("ssh", NAME, "tty", check=1, stdin=subprocess.DEVNULL).stdout == "not a tty\n"
    main, terminal = pty.openpty()
    with os.fdopen(main, "rb", buffering=0) as shown:
        words = guest.argv("ssh", NAME, "--", "tty")
        with subprocess.Popen(words, env=guest.environment, stdin=terminal, stdout=terminal, stderr=terminal) as ssh:
            os.close(terminal)
            assert b"/dev/pts/" in shown.read(4096)
            assert ssh.wait(60) == 0


def test_files_are_copied_both_ways_whatever_their_names_are(guest: Command) -> None:
    folder = guest.base / "files"
    folder.mkdir()
    names = ["-r", "with:colon", "$(x) 'y' \"z\""]
    for name in names:
        (folder / name).write_text(name)
        guest("cp", "--", f"./{name}" if ":" in name else name, f"{NAME}:/tmp/{name}", cwd=str(folder))
        guest("cp", "--", f"{NAME}:/tmp/{name}", f"./back {name}", cwd=str(folder))
        assert (folder / f"back {name}").read_text() == name
    guest("cp", folder, f"{NAME}:/tmp/", check=1)
    guest("cp", "-r", folder, f"{NAME}:")
    assert guest("ssh", NAME, "ls files | wc -l").stdout.strip() == str(2 * len(names))
    assert "No such file" in guest("cp", f"{NAME}:/none", folder, check=1).stderr


def test_one_path_is_in_a_guest(guest: Command) -> None:
    assert "found two" in guest("cp", f"{NAME}:a", f"{NAME}:b", check=2).stderr
    assert "found none" in guest("cp", "./a:b", "c", check=2).stderr
    guest("cp", "nobody:a", ".", check=10)
    guest("ssh", "nobody", check=10)


def test_another_host_key_is_refused_and_the_reason_is_said(guest: Command) -> None:
    file = known_hosts(guest)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    own = file.read_text()
    kind, key = own.split()[1:3]
    # Another point of the curve.
    file.write_text(f"guest {kind} {key[:-6]}{'AAAAAA' if key[-6:] != 'AAAAAA' else 'BBBBBB'}\n")
    try:
        assert "Host key verification failed" in guest("ssh", NAME, "true", check=255).stderr
        told = guest("wait", NAME, "ssh", check=1).stderr
        assert "has another host key than at the first contact" in told
        assert "rm '" in told
    finally:
        file.write_text(own)
    assert guest("wait", NAME, "ssh").stdout == "demo: ready\n"


def test_who_may_not_log_in_is_told(guest: Command) -> None:
    key = guest.base / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    assert "Permission denied" in guest("ssh", "-i", key, NAME, "true", check=255).stderr
    assert guest("ssh", "-l", "root", NAME, "echo $USER").stdout == "root\n"


CLOUD_INIT = """#!/bin/sh
echo "status: {status}"
echo "errors: [{error}]"
exit {code}
"""


@pytest.mark.parametrize(
    ("status", "error", "code", "exit_code", "told"),
    [
        ("done", "", 0, 0, "demo: ready"),
        ("done", "it can be lived with", 2, 0, "demo: ready"),
        ("error", "no such package", 1, 1, "errors: [no such package]"),
        ("disabled", "", 0, 1, "status: disabled"),
    ],
)
def test_cloud_init_is_waited_for_and_its_error_is_an_error(
    status: str, error: str, code: int, exit_code: int, told: str, guest: Command
) -> None:
    program = guest.base / "cloud-init"
    program.write_text(CLOUD_INIT.format(status=status, error=error, code=code))
    program.chmod(0o755)
    guest("cp", program, f"{NAME}:/bin/cloud-init")
    waited = guest("wait", NAME, "cloud-init", check=exit_code)
    assert told in waited.stdout + waited.stderr
    guest("ssh", NAME, "rm /bin/cloud-init")


def test_a_guest_without_cloud_init_says_so(guest: Command) -> None:
    assert "demo has no cloud-init" in guest("wait", NAME, "cloud-init", check=1).stderr


def test_a_server_that_starts_late_is_waited_for(guest: Command) -> None:
    with sync.attach(NAME, root=guest.runtime) as attached:
        attached.console.send("killall dropbear; echo stopp''ed\n")
        attached.console.expect("stopped", limit=60)
        for condition in ("ssh", "port:22"):
            with pytest.raises(GuestTimeout, match="was not ready within 2 s"):
                attached.wait_until_ready(sync.parse_condition(condition), limit=2)
        attached.console.send("dropbear -R -s\n")
        attached.wait_until_ready(sync.parse_condition("port:22"), limit=60)
        attached.wait_until_ready(sync.parse_condition("ssh"), limit=60)
        end = attached.ssh("echo", "a  b")
        assert (end.exit_code, end.stdout) == (0, b"a  b\n")
        assert attached.ssh("cat; exit 3", given=b"given").exit_code == 3
        with pytest.raises(UsageError, match="no port of this host leads to the TCP port 81"):
            attached.wait_until_ready(sync.parse_condition("port:81"))


def test_the_key_of_a_system_that_begins_anew_is_forgotten(guest: Command) -> None:
    folder = known_hosts(guest).parent
    guest("down", NAME, "--now")
    kept = guest.base / "kept.raw"
    kept.write_bytes(bytes(1 << 20))
    # What it writes to its first disk is there at its next start.
    for disks, there in ((f"[{{path: {kept}}}]", True), (f"[{{path: {kept}, read_only: true}}]", False)):
        guest("up", PROFILES / "demo.yaml", "--paused", *some_qemu(), *SSH, "--set", f"disks={disks}")
        assert (folder / "known_hosts").exists() == there
        guest("down", NAME, "--now")


def test_a_guest_without_a_way_in_says_so(sevlaunch: Command) -> None:
    sevlaunch("up", PLAIN, "--paused", *some_qemu())
    for words in (("ssh", "plain"), ("cp", "plain:a", "b"), ("wait", "plain", "ssh"), ("wait", "plain", "port:22")):
        assert "ssh: auto" in (told := sevlaunch(*words, check=2).stderr) or "forward" in told
    assert "can't be asked" in sevlaunch("wait", "plain", "cloud-init", check=2).stderr
    sevlaunch("down", "plain", "--now")


def record(**changes: object) -> Record:
    """As much of a guest's record as the way into it takes."""
    fields = dict.fromkeys(Record.__struct_fields__)
    return Record(**{**fields, "name": "g", "state_folder": "/s", **changes})  # type: ignore[arg-type]


def test_a_guest_without_a_port_is_reached_over_vsock() -> None:
    needs.program("ssh", "openssh-client")
    way = find_way(record(vsock_cid=7, login=Login("me", "/k")), Path("/run"))
    words = ssh_argv(way, ["a", "b c"])
    assert {"ProxyUseFdpass=yes", "StrictHostKeyChecking=accept-new"} <= set(words)
    assert next(word for word in words if word.startswith("ProxyCommand=")).endswith("vsock_connection.py 7 22")
    assert words[-3:] == ["--", "127.0.0.1", "a 'b c'"]
    with pytest.raises(UsageError, match="has no port for SSH"):
        find_way(record(), Path("/run"))


def test_a_file_that_ssh_would_take_for_another_is_refused() -> None:
    needs.program("ssh", "openssh-client")
    way = find_way(record(vsock_cid=7, state_folder="/s/${HOME}"), Path("/run"))
    with pytest.raises(HostError, match="beginning of a variable"):
        ssh_argv(way, [])


def test_without_ssh_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SevlaunchError, match="openssh-client"):
        ssh_argv(find_way(record(vsock_cid=7), Path("/run")), [])


def written_files(pid: int) -> set[tuple[int, int]]:
    """Device and inode of each regular file that a process has open for writing."""
    found = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            status = link.stat()
            if stat.S_ISREG(status.st_mode) and link.lstat().st_mode & stat.S_IWUSR:
                found.add((status.st_dev, status.st_ino))
    return found


@pytest.mark.soak
def test_ten_guests_of_two_commands_and_of_one_image_are_reached(demo: Path, sevlaunch: Command) -> None:
    needs.demo_ssh()
    qemu_img = needs.program("qemu-img", "qemu-utils")
    image = sevlaunch.base / "one.qcow2"
    subprocess.run([qemu_img, "create", "-q", "-f", "qcow2", image, "8M"], check=True)
    before = image.read_bytes()
    disks = ("--set", f"disks=[{{image: {image}, overlay: keep}}]")
    options = (*some_qemu(), *SSH, *disks, "--wait", "ssh", "--wait-timeout", "900", *JSON)
    commands = [sevlaunch.start("up", demo, "--name", name, "--count", "5", *options) for name in ("a", "b")]
    started = []
    for command in commands:
        done = finish(command, 1000)
        assert done.code == 0, done.stderr
        started += done.json
    names = [one["name"] for one in started]
    assert len({one["ssh"]["port"] for one in started}) == len(set(names)) == 10
    files = [written_files(one["pid"]) for one in started]
    assert len(set.union(*files)) == sum(map(len, files))
    assert all(files)
    for name in names:
        assert sevlaunch("ssh", name, "hostname").stdout == f"{name}\n"
        sevlaunch("ssh", name, "dd of=/dev/vda conv=notrunc 2>&1 && sync", input=f"{name}\n")
    sevlaunch("down", "--all", "--now")
    nothing_left(sevlaunch)
    for name in names:
        [overlay] = (sevlaunch.state / name).glob("*/*.qcow2")
        disk = sevlaunch.base / "disk.raw"
        subprocess.run([qemu_img, "convert", "-f", "qcow2", "-O", "raw", overlay, disk], check=True)
        assert disk.read_bytes().startswith(f"{name}\n\0".encode())
    assert image.read_bytes() == before
    sevlaunch("rm", *names)
    assert list(sevlaunch.state.iterdir()) == []
