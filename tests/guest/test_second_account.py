"""What another account on the host may try: the one that QEMU runs as, and one that was first in a public folder."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sevlaunch.errors import HostError
from sevlaunch.guest.folder import GuestFolder
from sevlaunch.guest.runtime import open_root, prepare_root
from sevlaunch.host.accounts import Account, find_account
from tests import needs
from tests.conftest import ROOT, Command, wait_for_console, wait_until
from tests.guest.support import (
    JSON,
    PLAIN,
    ended,
    listed,
    no_traceback,
    nothing_left,
    ordinary_user,
    status_of,
)

# Within an ordinary user's reach.
PYTHON = "/usr/bin/python3"
SECRET = "root-knows-this-alone"
TCG = ("--set", "accel=tcg")


@pytest.fixture
def account() -> Account:
    """The account that QEMU runs as."""
    needs.root("starting QEMU as another user")
    names = {user.pw_name for user in pwd.getpwall()}
    return find_account(next(name for name in ("daemon", "bin", "nobody") if name in names))


@pytest.fixture
def command(account: Account, sevlaunch: Command, system_qemu: str) -> Command:
    """The command, run by root, whose folders others can pass through, as /run and /var/lib, and who has a secret in a
    variable.
    """
    sevlaunch.state.parent.mkdir()
    for folder in (sevlaunch.base, sevlaunch.runtime.parent, sevlaunch.state.parent):
        folder.chmod(0o755)
    sevlaunch.environment["ROOTS_SECRET"] = SECRET
    return sevlaunch


def start(command: Command, account: Account, *arguments: str) -> int:
    """Start a guest whose QEMU runs as the account; its PID."""
    options = (*TCG, "--set", f"run_as={account.name}", *arguments)
    return int(command("up", PLAIN, "--paused", *options, *JSON).json["pid"])


def attack(account: Account, folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script as the account, in a folder."""
    return subprocess.run(
        ["sh", "-c", f'cd "$0" && {script}', str(folder)],
        user=account.uid,
        group=account.gid,
        extra_groups=[],
        capture_output=True,
        text=True,
    )


def inner(command: Command) -> Path:
    """The folder of QEMU's account."""
    return command.runtime / "plain/qemu"


@contextmanager
def roots_file(command: Command) -> Iterator[Path]:
    """A file that root alone may read and write."""
    file = command.base / "roots"
    file.write_text(SECRET)
    file.chmod(0o600)
    yield file
    assert file.read_text() == SECRET


def test_qemu_and_what_runs_beside_it_know_nothing_of_roots_environment(command: Command, account: Account) -> None:
    pid = start(command, account)
    variables = dict(entry.partition(b"=")[::2] for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))
    assert set(variables) <= {b"PATH", b"LANG", b"LC_ALL", b"TZ", b""}
    command("down", "plain", "--now")
    nothing_left(command)


# Which commands use a file of the account's folder.
USERS: dict[str, list[tuple[str, ...]]] = {
    "console.sock": [("console", "plain")],
    "commands.sock": [("ps",), ("status", "plain"), ("qmp", "plain", "query-status"), ("resume", "plain")],
}


@pytest.mark.parametrize("name", USERS)
@pytest.mark.parametrize("what", ["link", "fifo", "folder", "file", "socket"])
def test_whatever_the_account_puts_in_the_place_of_its_files_no_command_uses_it(
    what: str, name: str, command: Command, account: Account
) -> None:
    pid = start(command, account)
    with roots_file(command) as secret, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(command.base / "listener"))
        listener.listen()
        make = {
            "link": f"ln -s {secret} {name}",
            "fifo": f"mkfifo {name}",
            "folder": f"mkdir -p {name}/a/b && touch {name}/a/b/c",
            "file": f"touch {name}",
            "socket": f"ln -s {command.base / 'listener'} {name}",
        }[what]
        assert attack(account, inner(command), f"rm {name} && {make}").returncode == 0
        for arguments in USERS[name]:
            result = command(*arguments, check=None, limit=60, input="password\n")
            no_traceback(result)
            fine = arguments[0] in ("ps", "status")
            assert result.code == (0 if fine else 4), result
            assert SECRET not in result.stdout + result.stderr
        if name == "commands.sock":
            assert listed(command) == {"plain": "unresponsive"}
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
    how = "terminated" if name == "commands.sock" else "quit"
    assert command("down", "plain", "--now").stdout == f"plain: {how}\n"
    assert ended(pid)
    nothing_left(command)


def test_the_account_may_write_into_the_consoles_log_and_not_replace_it(command: Command, account: Account) -> None:
    start(command, account)
    folder = command.console_logs("plain")[0].parent
    with roots_file(command) as secret:
        for what in ("rm console.log", f"ln -sf {secret} console.log", "mkfifo more", "cat console.log", "ls"):
            assert attack(account, folder, what).returncode != 0, what
        assert attack(account, folder, "printf hello >> console.log").returncode == 0
        assert command("logs", "plain").stdout.endswith("hello")
    command("down", "plain", "--now")


def test_what_is_forged_in_the_accounts_folder_is_not_believed(command: Command, account: Account) -> None:
    start(command, account)
    before = command("evidence", "plain").json
    forged = '{"report": "FORGED", "certificates": 7, "pid": 1, "name": "FORGED", "measurement": 5}'
    for name in ("attestation.json", "evidence.json", "guest.json", "plan.json", "lock", "launcher", "qemu.log"):
        assert attack(account, inner(command), f"echo '{forged}' > {name}").returncode == 0
        assert attack(account, command.runtime / "plain", f"echo '{forged}' > {name}").returncode != 0
    assert command("evidence", "plain").json == before
    assert listed(command) == {"plain": "paused"}
    assert "FORGED" not in command("logs", "plain", "--qemu").stdout
    assert command("down", "plain").stdout == "plain: quit\n"
    nothing_left(command)


def test_an_attestation_counts_for_a_rehearsal_alone_and_only_where_root_wrote_it(
    command: Command, account: Account
) -> None:
    start(command, account)
    before = command("evidence", "plain").json
    # Even if it stood where a rehearsal's helper puts it.
    (command.runtime / "plain/attestation.json").write_text('{"report": "FORGED", "certificates": []}')
    assert command("evidence", "plain").json == before
    command("down", "plain", "--now")


def test_folders_that_are_deeper_than_there_are_descriptors_go_away(command: Command, account: Account) -> None:
    start(command, account)
    deep = "import os\nfor _ in range(3000):\n    os.mkdir('d'); os.chdir('d')\n    open('f', 'w').close()\n"
    done = attack(account, inner(command), f'{PYTHON} -c "{deep}" && chmod 0 .')
    assert done.returncode == 0, done.stderr
    assert command("down", "plain", "--now", preexec_fn=few_files).stdout in ("plain: quit\n", "plain: terminated\n")
    nothing_left(command)
    start(command, account)
    command("down", "plain", "--now")


def few_files() -> None:
    """As many descriptors as a command takes, and far fewer than there are folders."""
    import resource

    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))


def background(account: Account, command: Command, *argv: str) -> subprocess.Popen[bytes]:
    """Run something as the account in its folder, beside what comes."""
    return subprocess.Popen(
        argv, cwd=inner(command), user=account.uid, group=account.gid, extra_groups=[], stderr=subprocess.DEVNULL
    )


def test_a_process_that_goes_on_making_files_does_not_keep_them(command: Command, account: Account) -> None:
    start(command, account)
    forever = "n=0; while mkdir -p d$n/e && touch d$n/e/f; do n=$((n + 1)); done"
    busy = background(account, command, "sh", "-c", forever)
    try:
        wait_until((inner(command) / "d5").exists, 30, "files")
        command("down", "plain", "--now")
        nothing_left(command)
    finally:
        busy.kill()
        busy.wait()


def test_a_monitor_of_the_accounts_own_is_no_way_to_keep_qemu_alive(command: Command, account: Account) -> None:
    pid = start(command, account)
    # It answers what it likes; it may also be a QEMU that was taken over.
    fake = (
        "import socket, os, time\n"
        "os.unlink('commands.sock')\n"
        "s = socket.socket(socket.AF_UNIX); s.bind('commands.sock'); s.listen()\n"
        "open('ready', 'w').close()\n"
        "while True:\n"
        "    c = s.accept()[0]; c.sendall(b'[' * 70000); c.close()\n"
    )
    liar = background(account, command, PYTHON, "-c", fake)
    try:
        wait_until((inner(command) / "ready").exists, 30, "the monitor")
        assert status_of(command, "plain")["state"] == "unresponsive"
        no_traceback(command("qmp", "plain", "query-status", check=5))
        assert command("down", "plain", "--timeout", "2").stdout == "plain: terminated\n"
        assert ended(pid)
        nothing_left(command)
    finally:
        liar.kill()
        liar.wait()


def test_a_lock_that_the_account_lets_go_of_makes_nobody_forget_qemu(command: Command, account: Account) -> None:
    pid = start(command, account)
    # As QEMU, were it taken over, could do with the descriptor that it has inherited.
    os.kill(pid, signal.SIGSTOP)
    lock = command.runtime / "plain/lock"
    lock.rename(lock.with_name("other"))
    lock.touch(mode=0o600)
    os.kill(pid, signal.SIGCONT)
    assert status_of(command, "plain")["pid"] == pid
    assert "runs already" in command("up", PLAIN, *TCG, check=1).stderr
    command("down", "plain", "--now")
    assert ended(pid)


def test_passt_runs_as_the_account(demo: Path, command: Command, account: Account) -> None:
    needs.program("passt", "passt")
    for path in ("vmlinuz", "initrd.img", "disk.raw"):
        shutil.copy(ROOT / "build/demo" / path, command.base / path)
        (command.base / path).chmod(0o644)
    boot = f"boot={{kernel: {command.base}/vmlinuz, initrd: {command.base}/initrd.img, cmdline: console=ttyS0 quiet}}"
    settings = [f"run_as={account.name}", boot, "disks=[]", "networks=[{type: passt}]"]
    options = [word for setting in settings for word in ("--set", setting)]
    command("up", demo, *TCG, *options)
    for pid in command.programs():
        status = Path(f"/proc/{pid}/status").read_text()
        assert f"Uid:\t{account.uid}\t{account.uid}" in status
        assert SECRET.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
    assert len(command.programs()) == 2
    assert "demo: net eth0 " in wait_for_console(command, "demo", "demo: ready", limit=300)
    command("down", "demo")
    nothing_left(command)


COMMANDS = (
    ("ps",),
    ("status", "bait"),
    ("evidence", "bait"),
    ("logs", "bait"),
    ("console", "bait"),
    ("qmp", "bait", "query-status"),
    ("resume", "bait"),
    ("down", "bait", "--now"),
    ("down", "--all"),
    ("up", PLAIN, *TCG),
)


def bait(folder: Path, owner: int) -> list[socket.socket]:
    """A folder of guests that somebody else made, with a guest that listens; its sockets."""
    listeners = []
    (folder / "bait/qemu").mkdir(parents=True)
    for name in ("console.sock", "commands.sock"):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(folder / "bait/qemu" / name))
        listener.listen()
        listener.setblocking(False)
        listeners.append(listener)
    (folder / "bait/evidence.json").write_text('{"name": "FORGED"}')
    for path in (folder, *folder.rglob("*")):
        os.chown(path, owner, owner)
        path.chmod(0o777)
    return listeners


def refuses_bait(command: Command, listeners: list[socket.socket]) -> None:
    """No command uses the folder: nothing is shown, nothing is connected to."""
    for arguments in COMMANDS:
        result = command(*arguments, check=4, limit=60, input="password\n")
        no_traceback(result)
        assert "FORGED" not in result.stdout + result.stderr
        assert "XDG_RUNTIME_DIR" in result.stderr, result
    for listener in listeners:
        with pytest.raises(BlockingIOError):
            listener.accept()
        listener.close()


def test_a_folder_that_another_user_made_under_our_name_is_not_used(base: Path, system_qemu: str) -> None:
    user = ordinary_user(base)
    del user.environment["XDG_RUNTIME_DIR"]
    folder = Path(f"/tmp/sevlaunch-{user.UID}")
    assert not folder.exists()
    try:
        listeners = bait(folder, 12345)
        refuses_bait(user, listeners)
        assert {path.name for path in folder.rglob("*")} >= {"bait", "console.sock"}
    finally:
        shutil.rmtree(folder)


def test_a_folder_that_a_stranger_could_exchange_is_not_used(base: Path, system_qemu: str) -> None:
    user = ordinary_user(base)
    run = base / "strangers/run"
    run.mkdir(parents=True)
    os.chown(base / "strangers", 12345, 12345)
    (base / "strangers").chmod(0o755)
    os.chown(run, user.UID, user.UID)
    user.environment["XDG_RUNTIME_DIR"] = str(run)
    for arguments in COMMANDS:
        result = user(*arguments, check=4)
        assert "belongs to another user (uid 12345), who could put other guests into" in result.stderr, result


@pytest.mark.parametrize("kind", ["owner", "parent", "link", "everybody"])
def test_what_outlives_a_guest_is_not_put_where_a_stranger_could_exchange_it(kind: str, command: Command) -> None:
    state, strange = command.state, command.base / "strange"
    strange.mkdir()
    os.chown(strange, 12345, 12345)
    if kind == "owner":
        strange.rename(state)
    elif kind == "parent":
        command.environment["XDG_STATE_HOME"] = str(strange / "state")
    elif kind == "link":
        state.mkdir()
        (state / "plain").symlink_to(strange)
    else:
        state.mkdir()
        state.chmod(0o777)
    result = command("up", PLAIN, *TCG, check=4)
    assert "set XDG_STATE_HOME to a folder of yours" in result.stderr
    assert list(strange.iterdir() if strange.exists() else state.iterdir()) == []
    nothing_left(command)


@pytest.mark.parametrize("owner", [0, 12345])
def test_a_link_of_a_strangers_on_the_way_is_not_followed(owner: int, base: Path) -> None:
    needs.root("giving a link away")
    (base / "real").mkdir(mode=0o700)
    (base / "link").symlink_to(base / "real")
    os.lchown(base / "link", owner, owner)
    root = base / "link/sevlaunch"
    if owner:
        with pytest.raises(HostError, match="belongs to another user"):
            prepare_root(root)
        assert not (base / "real/sevlaunch").exists()
    else:
        prepare_root(root)
        open_root(root).__exit__(None, None, None)


def test_a_folder_that_everybody_can_write_is_no_place_for_one(base: Path) -> None:
    base.chmod(0o777)
    with pytest.raises(HostError, match="can be written by everybody"):
        prepare_root(base / "sevlaunch")
    base.chmod(0o1777)
    prepare_root(base / "sevlaunch")
    with GuestFolder(base, "sevlaunch").opened() as opened:
        assert opened.names() == []


def test_links_that_lead_in_a_circle_are_said(base: Path) -> None:
    (base / "a").symlink_to(base / "b")
    (base / "b").symlink_to(base / "a")
    with pytest.raises(HostError, match="too many links"):
        prepare_root(base / "a/sevlaunch")
