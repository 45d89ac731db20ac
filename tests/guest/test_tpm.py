"""A TPM through swtpm: it is there, it outlives its guest, and it is QEMU's account's own."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest
from msgspec.structs import replace

from sevlaunch.errors import HostError, ProfileError
from sevlaunch.guest.state import prepare_state_folders
from sevlaunch.host.accounts import find_account
from sevlaunch.host.model import Host
from sevlaunch.plan.command_line import argv
from sevlaunch.plan.formats import shell
from sevlaunch.plan.plan import Plan
from sevlaunch.plan.resolve import resolve
from sevlaunch.profile.loader import loads
from tests import needs
from tests.conftest import HOSTS, VERSIONS, Command, qemu_binary_of, wait_until
from tests.guest.support import JSON, PLAIN, with_qemu

TPM = ("--set", "accel=tcg", "--set", "tpm=true")


def plan_of(base: Path, text: str = "tpm: true\n") -> Plan:
    """The plan of a guest on a recorded host, with folders of the test's own."""
    milan = Host.load(HOSTS / "milan-qemu-10.0.json")
    folders = replace(milan.folders, runtime=str(base / "run"), state=str(base / "state"))
    return resolve(loads(text if "name:" in text else f"name: g\n{text}"), replace(milan, folders=folders))


def states(command: Command) -> list[Path]:
    """What swtpm has stored."""
    return list(command.state.rglob("tpm/*.permall"))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("model", ["tis", "crb"])
def test_each_qemu_has_each_tpm(version: str, model: str, sevlaunch: Command) -> None:
    needs.program("swtpm", "swtpm")
    options = ("--set", "accel=tcg", "--set", f"tpm={{model: {model}}}", *with_qemu(qemu_binary_of(version)))
    sevlaunch("up", PLAIN, "--paused", *options)
    [tpm] = sevlaunch("qmp", "plain", "query-tpm").json
    assert tpm["model"] == f"tpm-{model}"
    sevlaunch("down", "plain", "--now")
    wait_until(lambda: sevlaunch.left_behind() == [], what="the end of swtpm")


def test_what_is_in_it_outlives_the_guest(sevlaunch: Command, system_qemu: str) -> None:
    needs.program("swtpm", "swtpm")
    sevlaunch("up", PLAIN, "--paused", *TPM)
    [state] = states(sevlaunch)
    assert state.stat().st_mode & 0o077 == state.parent.stat().st_mode & 0o077 == 0
    seeds = hashlib.sha256(state.read_bytes()).digest()
    sevlaunch("down", "plain", "--now")
    wait_until(lambda: sevlaunch.left_behind() == [], what="the end of swtpm")
    sevlaunch("up", PLAIN, "--paused", *TPM)
    # The seeds are made at random, once.
    assert hashlib.sha256(state.read_bytes()).digest() == seeds
    sevlaunch("down", "plain", "--now")
    wait_until(lambda: sevlaunch.left_behind() == [], what="the end of swtpm")
    sevlaunch("rm", "plain")
    assert states(sevlaunch) == []


def test_it_is_the_accounts_own(sevlaunch: Command, system_qemu: str) -> None:
    needs.root("starting QEMU as another user")
    needs.program("swtpm", "swtpm")
    sevlaunch.state.parent.mkdir()
    # As /run and /var/lib are.
    for folder in (sevlaunch.base, sevlaunch.runtime.parent, sevlaunch.state.parent):
        folder.chmod(0o755)
    account = find_account("daemon")
    pid = sevlaunch("up", PLAIN, "--paused", *TPM, "--set", "run_as=daemon", *JSON).json["pid"]
    assert Path(f"/proc/{pid}").stat().st_uid == account.uid
    [state] = states(sevlaunch)
    assert state.stat().st_uid == state.parent.stat().st_uid == account.uid
    # It may write there, and see nothing of what is beside it.
    listing = ["ls", str(state.parent.parent)]
    done = subprocess.run(listing, user=account.uid, group=account.gid, extra_groups=[], capture_output=True)
    assert done.returncode != 0
    sevlaunch("down", "plain", "--now")
    refused = sevlaunch("up", PLAIN, "--paused", *TPM, check=4).stderr
    assert f"the folder {state.parent} is not this user's" in refused


def test_a_link_in_the_place_of_its_folder_is_refused(base: Path) -> None:
    plan = plan_of(base)
    [folder] = map(Path, plan.needs.state_folders)
    folder.parent.mkdir(parents=True)
    folder.symlink_to(base)
    with pytest.raises(HostError, match="is not this user's"):
        prepare_state_folders(plan, None)
    folder.unlink()
    prepare_state_folders(plan, None)
    prepare_state_folders(plan, None)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in folder.parent.iterdir()] == ["tpm"]
    folder.parent.chmod(0o755)


def test_the_program_gets_its_folder_and_socket_alone(base: Path) -> None:
    plan = plan_of(base)
    [swtpm] = plan.companions
    [folder] = plan.needs.state_folders
    words = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={folder},mode=0600"]
    assert list(swtpm.argv) == [
        *words,
        "--ctrl",
        f"type=unixio,path={plan.qemu_folder}/tpm.sock,mode=0600",
        "--terminate",
    ]
    assert "tpm-tis,tpmdev=tpm0" in argv(plan)
    assert f"install -d -m 0700 {folder}" in shell(plan)
    assert folder.startswith(f"{base}/state/g{os.sep}")


def test_a_comma_would_be_an_option_of_swtpm(base: Path) -> None:
    with pytest.raises(ProfileError, match="swtpm takes what stands behind the comma"):
        plan_of(base, "name: 'a,b'\ntpm: true\n")


def test_an_encrypted_guest_is_warned_of_it() -> None:
    [warning] = loads("security: sev\ntpm: true\n").warnings
    assert "the TPM is a program of the host" in str(warning)
    assert loads("tpm: true\n").warnings == loads("security: sev\ntpm: false\n").warnings == ()
