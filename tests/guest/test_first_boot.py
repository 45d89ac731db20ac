"""The seed of a guest that starts: who can read it, the keys in it, and what a kill leaves."""

from __future__ import annotations

import json
import random
import signal
import socket
import time
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_private_key

from sevlaunch.guest.first_boot import login_of, make_seed
from sevlaunch.guest.record import Login
from sevlaunch.host.model import Host
from sevlaunch.plan.plan import Plan
from sevlaunch.plan.resolve import resolve
from sevlaunch.profile.loader import loads
from tests.conftest import HOSTS, Command
from tests.guest.support import JSON, some_qemu
from tests.image.test_seed import read_back

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIG5vIHJlYWwga2V5LCB3aGljaCBub2JvZHkgaGFzIGl0 me@home"
HASH = "$6$salt$nobodyshallseethis"
PROFILE = f"""\
accel: tcg
memory: 64M
first_boot:
  user: admin
  password_hash: {HASH}
  files: [{{path: /etc/secret, source: secret.txt}}]
"""


@pytest.fixture
def web(sevlaunch: Command) -> Command:
    """The command of a user whose home folder is empty and who has no agent, with the profile web.yaml."""
    (sevlaunch.base / "web.yaml").write_text(PROFILE)
    (sevlaunch.base / "secret.txt").write_text("what the file holds")
    sevlaunch.environment["HOME"] = str(sevlaunch.base / "home")
    sevlaunch.environment.pop("SSH_AUTH_SOCK", None)
    return sevlaunch


def up(command: Command, *options: str) -> Any:
    """Start the guest, paused."""
    return command("up", command.base / "web.yaml", "--paused", *JSON, *options, *some_qemu()).json


def config(seed: bytes) -> Any:
    """The #cloud-config in a seed."""
    return yaml.safe_load(read_back(seed, "joliet_path")["user-data"])


def keys_of(command: Command) -> list[str]:
    """The keys that log in to the guest that runs."""
    seed = (command.runtime / "web/seed.iso").read_bytes()
    return [str(key) for key in config(seed)["users"][0].get("ssh_authorized_keys", [])]


def own_key(command: Command) -> Path:
    """The private key of the guest."""
    [found] = command.state.glob("web/*/ssh_key")
    return found


def planned(base: Path, text: str = "first_boot: true") -> Plan:
    """The plan of a guest, with folders of its own."""
    host = Host.load(HOSTS / "milan-qemu-10.0.json")
    folders = host.folders.__class__(runtime=str(base / "run"), state=str(base / "state"))
    host = host.__class__(**{**{name: getattr(host, name) for name in host.__struct_fields__}, "folders": folders})
    return resolve(loads(text, base=base), host)


def test_a_guest_has_a_seed_that_nobody_else_reads_and_no_other_place_has_what_is_in_it(web: Command) -> None:
    shown = up(web)
    folder = web.runtime / "web"
    seed = folder / "seed.iso"
    assert oct(seed.stat().st_mode & 0o7777) == "0o600"
    assert config(seed.read_bytes())["users"][0]["hashed_passwd"] == HASH
    assert config(seed.read_bytes())["write_files"][0]["content"] == "what the file holds"
    for file in (*folder.rglob("*"), *web.state.rglob("*")):
        if file.is_file() and file != seed:
            assert HASH.encode() not in file.read_bytes(), file
    assert HASH not in json.dumps(shown)
    web("down", "web", "--now")
    render = web("render", web.base / "web.yaml", "--format", "explain", *some_qemu()).stdout
    assert "first boot: user admin" in render and HASH not in render
    # Nor does the option that says it.
    up(web, "--set", f"first_boot.password_hash={HASH}")
    assert HASH.encode() not in (folder / "plan.json").read_bytes()
    wrong = web("check", web.base / "web.yaml", "--set", "first_boot.password_hash=hunter2", check=None)
    assert wrong.code == 1 and "hunter2" not in wrong.stdout + wrong.stderr
    web("down", "web", "--now")
    assert web.left_behind() == []


def test_credentials_are_in_files_that_nobody_else_reads_and_in_no_command_line(web: Command) -> None:
    (web.base / "key").write_bytes(b"\x00what the file holds")
    credentials = "credentials: {a.key: key, motd: {text: hello there}}\n"
    (web.base / "web.yaml").write_text(f"accel: tcg\nmemory: 64M\n{credentials}")
    command = up(web)["command"]
    folder = web.runtime / "web"
    paths = [value.partition("path=")[2] for value in command if value.startswith("type=11,")]
    assert paths == [str(folder / "credential0"), str(folder / "credential1")]
    texts = [Path(path).read_text() for path in paths]
    told = {"a.key": b"\x00what the file holds", "motd": b"hello there"}
    wanted = [f"io.systemd.credential.binary:{name}={b64encode(content).decode()}" for name, content in told.items()]
    assert texts == wanted
    assert [oct(Path(path).stat().st_mode & 0o7777) for path in paths] == ["0o600"] * 2
    encoded = b64encode(b"hello there")
    for file in folder.rglob("*"):
        if file.is_file() and str(file) not in paths:
            assert encoded not in file.read_bytes() and b"hello there" not in file.read_bytes(), file
    shell = web(
        "render", web.base / "web.yaml", "--set", "credentials={motd: {text: hello there}}", *some_qemu()
    ).stdout
    assert f"# {folder}/credential0 holds a secret, and is for `sevlaunch up` to make" in shell
    assert encoded.decode() not in shell and "hello there" not in shell
    web("down", "web", "--now")


def test_without_keys_the_guest_has_a_pair_of_its_own_and_keeps_it(web: Command) -> None:
    found = []
    for _ in range(2):
        up(web)
        key = own_key(web)
        assert oct(key.stat().st_mode & 0o7777) == "0o600"
        public = load_ssh_private_key(key.read_bytes(), password=None).public_key()
        [line] = keys_of(web)
        assert line.startswith(public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode() + " ")
        record = json.loads((web.runtime / "web/guest.json").read_bytes())
        assert record["login"] == ["admin", str(key), False]
        found.append(line)
        web("down", "web", "--now")
    assert found[0] == found[1]
    web("rm", "web")
    up(web)
    assert keys_of(web) != found[:1]
    web("down", "web", "--now")


def test_with_keys_of_the_user_there_is_no_pair(web: Command) -> None:
    (web.base / "home/.ssh").mkdir(parents=True)
    (web.base / "home/.ssh/id_ed25519.pub").write_text(f"{KEY}\n")
    up(web)
    assert keys_of(web) == [KEY]
    assert list(web.state.glob("web/*/ssh_key")) == []
    record = json.loads((web.runtime / "web/guest.json").read_bytes())
    assert record["login"] == ["admin", None, False]
    web("down", "web", "--now")
    # What logged in once does so for as long as it is there.
    up(web, "--set", "first_boot.ssh_keys=own")
    pair = keys_of(web)
    web("down", "web", "--now")
    up(web)
    assert keys_of(web) == [KEY, *pair]
    web("down", "web", "--now")


def test_keys_that_are_named_are_all_there_are(web: Command) -> None:
    (web.base / "home/.ssh").mkdir(parents=True)
    (web.base / "home/.ssh/id_ed25519.pub").write_text(f"{KEY.replace('home', 'work')}\n")
    up(web, "--set", f"first_boot.ssh_keys=['{KEY}']")
    assert keys_of(web) == [KEY]
    web("down", "web", "--now")
    up(web, "--set", "first_boot.ssh_keys=[]")
    assert keys_of(web) == []
    web("down", "web", "--now")


def test_a_file_that_is_missing_is_told_before_anything_is_made(web: Command) -> None:
    (web.base / "secret.txt").unlink()
    refused = web("up", web.base / "web.yaml", *some_qemu(), check=4)
    assert f"file of first_boot {web.base}/secret.txt: no such file" in refused.stderr
    assert not list(web.state.glob("web/*/ssh_key"))


def test_an_own_key_that_is_damaged_is_told(web: Command) -> None:
    up(web)
    web("down", "web", "--now")
    own_key(web).write_text("nonsense")
    refused = web("up", web.base / "web.yaml", *some_qemu(), check=4)
    assert f"can't read the guest's SSH key {own_key(web)}: it is damaged" in refused.stderr
    assert web.left_behind() == []


def test_who_logs_in_is_known_of_a_plan(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    assert plan.first_boot is not None
    assert login_of(plan) == Login("admin", None)
    plan.first_boot.own_key.parent.mkdir(parents=True)
    plan.first_boot.own_key.touch()
    assert login_of(plan) == Login("admin", str(plan.first_boot.own_key))
    assert login_of(planned(tmp_path, "first_boot: {ssh_keys: own}")) == Login(
        "admin", str(plan.first_boot.own_key), True
    )
    assert login_of(planned(tmp_path, "{}")) is None
    assert login_of(planned(tmp_path, "first_boot: {user: null}")) == Login(None, str(plan.first_boot.own_key))
    (tmp_path / "user.toml").write_text("a = 1\n")
    assert login_of(planned(tmp_path, "first_boot: {user_data: user.toml}")) is None


def test_an_agent_that_never_answers_does_not_hold_a_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("sevlaunch.host.ssh_keys.AGENT_SECONDS", 0.05)
    plan = planned(base)
    assert plan.first_boot is not None
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(str(base / "agent"))
        agent.listen()
        monkeypatch.setenv("SSH_AUTH_SOCK", str(base / "agent"))
        [key] = config(make_seed(plan.first_boot))["users"][0]["ssh_authorized_keys"]
    assert key.endswith(f"sevlaunch {plan.first_boot.guest}")


def killed_and_started_again(web: Command, rounds: int) -> None:
    """Kill starts at random moments; the next one has a whole seed and the one key, whatever it found."""
    chance = random.Random(18)
    for _ in range(rounds):
        start = web.start("up", web.base / "web.yaml", "--paused", *some_qemu())
        time.sleep(chance.uniform(0.1, 0.8))
        start.send_signal(signal.SIGKILL)
        start.communicate()
        for file in web.state.glob("web/*/ssh_key"):
            load_ssh_private_key(file.read_bytes(), password=None)
        for file in web.runtime.glob("web/seed.iso"):
            config(file.read_bytes())
        web("down", "web", "--now", check=None)
        up(web)
        assert len(keys_of(web)) == 1
        web("down", "web", "--now")
        assert web.left_behind() == []


def test_a_start_that_is_killed_leaves_no_half_of_a_seed(web: Command) -> None:
    killed_and_started_again(web, 5)


@pytest.mark.soak
def test_a_hundred_starts_that_are_killed_leave_no_half_of_a_seed(web: Command) -> None:
    killed_and_started_again(web, 100)
