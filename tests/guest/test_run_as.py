"""Who QEMU runs as, and what of its files others can read. Needs root, and /usr/bin/qemu for an ordinary user."""

from __future__ import annotations

import os
import pwd
import stat
import subprocess
from pathlib import Path

import pytest
from msgspec.structs import replace

from sevlaunch.errors import HostError, ProfileError
from sevlaunch.guest.folder import GuestFolder
from sevlaunch.guest.runtime import prepare_root
from sevlaunch.host.accounts import PASS, READ, WRITE, find_account, grant, has_grant, may, withdraw_grants
from sevlaunch.host.model import Host
from sevlaunch.plan.resolve import resolve
from sevlaunch.plan.unit import Service, systemd_unit
from sevlaunch.profile.loader import loads
from tests import needs
from tests.conftest import HOSTS, PROFILES, Command, wait_until
from tests.guest.support import JSON, PLAIN, free_huge_pages, ordinary_user, with_kvm

TCG = ("--set", "accel=tcg")


@pytest.fixture
def as_root() -> None:
    """The rights that starting QEMU as another user takes."""
    needs.root("starting QEMU as another user")


@pytest.fixture
def user() -> str:
    """An ordinary user that is not 'nobody' where there is one."""
    return next(name for name in ("daemon", "bin", "nobody") if name in {user.pw_name for user in pwd.getpwall()})


@pytest.fixture
def reachable(sevlaunch: Command) -> Command:
    """The command, with folders that others can pass through, as /run and /var/lib are."""
    sevlaunch.state.parent.mkdir()
    for folder in (sevlaunch.base, sevlaunch.runtime.parent, sevlaunch.state.parent):
        folder.chmod(0o755)
    return sevlaunch


def readable_by(uid: int, folder: Path) -> list[str]:
    """What of a folder another user can read or list."""
    done = subprocess.run(
        ["find", str(folder), "-readable"], user=uid, group=uid, extra_groups=[], capture_output=True, text=True
    )
    return done.stdout.split()


@pytest.mark.usefixtures("as_root")
def test_qemu_has_the_uid_and_nobody_else_can_read_anything(user: str, reachable: Command, system_qemu: str) -> None:
    account = find_account(user)
    pid = reachable("up", PLAIN, *TCG, "--set", f"run_as={user}", *JSON).json["pid"]
    status = Path(f"/proc/{pid}/status").read_text()
    uids = next(line for line in status.splitlines() if line.startswith("Uid:")).split()[1:]
    assert uids == [str(account.uid)] * 4
    assert f"Gid:\t{account.gid}\t{account.gid}" in status
    assert "CapEff:\t0000000000000000" in status
    folder = reachable.runtime / "plain"
    assert {path.name for path in folder.iterdir()} >= {"qemu", "guest.json", "lock"}
    assert {path.name for path in (folder / "qemu").iterdir()} >= {"qmp.sock", "console.sock"}
    assert (folder / "qemu").stat().st_uid == account.uid
    # Another one than the user itself; root's files are not readable by the user either.
    other = 12345
    assert account.uid != other
    assert readable_by(other, reachable.runtime) == []
    assert str(folder / "guest.json") not in readable_by(account.uid, folder)
    for path in folder.rglob("*"):
        assert not stat.S_IMODE(path.lstat().st_mode) & 0o077, path
    # It is commanded as any other guest.
    assert reachable("status", "plain", *JSON).json["state"] == "running"
    reachable("down", "plain", "--now")
    assert reachable.left_behind() == []


@pytest.mark.usefixtures("as_root")
def test_the_user_reads_the_seed_and_the_credentials_and_nobody_else_does(user: str, reachable: Command) -> None:
    # It is this user's file: what is in it goes into the seed.
    (reachable.base / "note").write_text("x")
    (reachable.base / "note").chmod(0o600)
    first_boot = f"first_boot={{ssh_keys: own, files: [{{path: /note, source: {reachable.base}/note}}]}}"
    told = ("--set", first_boot, "--set", "credentials={motd: {text: hello}}")
    reachable("up", PLAIN, *TCG, "--set", f"run_as={user}", *told, *JSON)
    folder = reachable.runtime / "plain"
    files = [folder / "seed.iso", folder / "credential0"]
    assert all(may(str(file), os.R_OK, find_account(user)) and file.stat().st_uid == 0 for file in files)
    assert not any(may(str(file), os.W_OK, find_account(user)) for file in files)
    assert readable_by(12345, reachable.runtime) == []
    [key] = reachable.state.glob("plain/*/ssh_key")
    assert not may(str(key), os.R_OK, find_account(user))
    reachable("down", "plain", "--now")
    assert reachable.left_behind() == []


@pytest.mark.usefixtures("as_root")
def test_the_user_has_one_folder_and_no_hand_in_the_other(user: str, base: Path) -> None:
    base.chmod(0o755)
    root = base / "run"
    prepare_root(root)
    folder = GuestFolder(root, "g")
    folder.path.mkdir(mode=0o700)
    folder.write("guest.json", b"{}")
    account = find_account(user)
    folder.make_qemu_folder(account)
    forbidden = [f"touch {folder.path}/own", f"rm -f {folder.path}/guest.json", f"cat {folder.path}/guest.json"]
    forbidden += [f"ls {folder.path}", f"ls {root}", f"mv {folder.path}/qemu {folder.path}/other"]
    for script in (*forbidden, f"touch {folder.path}/qemu/own"):
        done = subprocess.run(
            ["sh", "-c", script], user=account.uid, group=account.gid, extra_groups=[], capture_output=True, text=True
        )
        assert (done.returncode == 0) == (script not in forbidden), (script, done)
    assert {str(path.relative_to(folder.path)) for path in folder.path.rglob("*")} == {"guest.json", "qemu", "qemu/own"}
    # The next guest of the name does not inherit the access.
    folder.clear()
    folder.make_qemu_folder(None)
    assert not has_grant(folder.path)
    for path in (folder.path, folder.path / "qemu"):
        assert (stat.S_IMODE(path.stat().st_mode), path.stat().st_uid) == (0o700, 0)


@pytest.mark.usefixtures("as_root")
def test_grants_add_up_and_are_withdrawn(base: Path) -> None:
    file = base / "f"
    file.write_text("x")
    file.chmod(0o600)
    base.chmod(0o755)
    first, second = find_account("daemon"), find_account("nobody")
    grant(file, first, READ)
    grant(file, second, READ | WRITE)
    path = str(file)
    for account, mode in ((first, os.F_OK), (first, os.R_OK), (second, os.R_OK | os.W_OK)):
        assert may(path, mode, account)
    for mode in (os.W_OK, os.X_OK, os.R_OK | os.W_OK):
        assert not may(path, mode, first)
    assert not may(f"{path}/no such file", os.F_OK, first)
    withdraw_grants(file)
    assert not may(path, os.R_OK, first)
    assert may(path, os.R_OK | os.W_OK)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert PASS == 1


@pytest.mark.usefixtures("as_root")
def test_a_file_out_of_the_users_reach_is_told_before_qemu_starts(
    user: str, reachable: Command, system_qemu: str
) -> None:
    disk = reachable.base / "disk.raw"
    disk.write_bytes(bytes(1 << 20))
    disk.chmod(0o600)
    options = (*TCG, "--set", f"run_as={user}", "--set", f"disks=[{{path: {disk}}}]")
    assert f"disk {disk}: can't be read and written by this user" in reachable("up", PLAIN, *options, check=4).stderr
    grant(disk, find_account(user), READ | WRITE)
    reachable("up", PLAIN, *options, "--paused")
    reachable("down", "plain", "--now")


@pytest.mark.usefixtures("as_root")
def test_a_user_that_is_not_known_is_refused(reachable: Command, system_qemu: str) -> None:
    refused = reachable("up", PLAIN, *TCG, "--set", "run_as=nobody-of-that-name", check=4).stderr
    assert "no user 'nobody-of-that-name' is known here" in refused
    assert reachable.left_behind() == []


def recorded(**changes: object) -> Host:
    """The recorded Milan, with other facts."""
    return replace(Host.load(HOSTS / "milan-qemu-10.0.json"), **changes)


def test_an_ordinary_user_can_not_become_another_one() -> None:
    loaded = loads("name: g\nrun_as: qemu\n")
    with pytest.raises(HostError, match="run_as asks for the user qemu, and alice can't become another one"):
        resolve(loaded, recorded(user="alice"))
    assert resolve(loaded, recorded(user="qemu")).run_as is None
    plan = resolve(loaded, recorded())
    assert plan.run_as
    assert plan.run_as.value == "qemu"


def test_a_rehearsal_runs_as_the_user_who_starts_it() -> None:
    with pytest.raises(ProfileError, match="a rehearsal runs QEMU as the user who starts it"):
        resolve(loads("name: g\nsecurity: sev\nrun_as: qemu\n"), recorded(), rehearse=True)


def test_the_capability_to_lock_memory_does_not_outlast_the_change_of_user() -> None:
    host = recorded()
    assert host.memory.can_raise_memlock
    with pytest.raises(HostError, match="over this user's limit of 8 MiB"):
        resolve(loads("name: g\nsecurity: sev\nrun_as: qemu\n"), host)
    memory = replace(host.memory, can_set_limits=True)
    resolve(loads("name: g\nsecurity: sev\nrun_as: qemu\n"), recorded(memory=memory))


def test_the_unit_keeps_the_capabilities_for_the_change_of_user() -> None:
    service = Service(("sevlaunch",), ("/p.yaml",), False)
    other = systemd_unit(resolve(loads("name: g\nrun_as: qemu\n"), recorded()), service)
    assert "CapabilityBoundingSet=CAP_SETUID CAP_SETGID CAP_CHOWN CAP_KILL CAP_DAC_OVERRIDE\n" in other
    assert "CapabilityBoundingSet=\n" in systemd_unit(resolve(loads("name: g\n"), recorded()), service)


@pytest.mark.usefixtures("as_root")
def test_an_ordinary_user_runs_the_plain_and_the_rehearsed_guest(base: Path, system_qemu: str) -> None:
    user = ordinary_user(base)
    pid = user("up", PLAIN, *TCG, *JSON).json["pid"]
    assert Path(f"/proc/{pid}").stat().st_uid == user.UID
    user("down", "plain")
    wait_until(lambda: not user.processes(), what="the end of QEMU")


@pytest.mark.usefixtures("as_root")
def test_an_ordinary_user_in_the_right_group_rehearses(base: Path, system_qemu: str) -> None:
    user = ordinary_user(base)
    with_kvm(user)
    # Huge pages, for the test's user may lock next to nothing.
    options = ("--set", "memory={size: 128M, hugepages: 2M}", "--rehearse", "--paused")
    with free_huge_pages(64):
        guest = user("up", PROFILES / "sev.yaml", *options, *JSON).json
        assert guest["rehearsal"]
        assert guest["measurement"]
        assert Path(f"/proc/{guest['pid']}").stat().st_uid == user.UID
        user("down", "--all", "--now")
        wait_until(lambda: not user.processes(), what="the end of QEMU")
