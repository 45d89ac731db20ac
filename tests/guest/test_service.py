"""A guest as a service: what systemd's own tools say of the unit, what it is told, and where a loop of reboots ends."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from msgspec.structs import replace

from sevlaunch.errors import ProfileError, QemuError
from sevlaunch.flows.service import RELAUNCHES, WITHIN_SECONDS, RelaunchLimit, notify_service
from sevlaunch.host.model import Host
from sevlaunch.plan.resolve import resolve
from sevlaunch.plan.unit import Service, exec_line, quote, systemd_unit, unit_name
from sevlaunch.profile.loader import loads
from tests import needs
from tests.conftest import HOSTS, PROFILES, Command
from tests.guest.support import PLAIN, finish, some_qemu

SAVED = HOSTS / "milan-qemu-10.0.json"


def settings(text: str, key: str) -> list[str]:
    """The values of a setting."""
    return re.findall(rf"^{key}=(.*)$", text, re.MULTILINE)


def unit_of(command: Command, *arguments: str | Path) -> str:
    """The unit that the command prints."""
    return command("unit", *arguments).stdout


@pytest.fixture
def systemd_analyze() -> str:
    """systemd's own judge of units."""
    return needs.program("systemd-analyze", "systemd")


@pytest.mark.parametrize("mode", ["system", "user"])
@pytest.mark.parametrize("profile", ["plain", "sev", "sev-es", "sev-snp", "sles15-sev"])
def test_systemd_accepts_the_unit(
    profile: str, mode: str, sevlaunch: Command, systemd_analyze: str, tmp_path: Path
) -> None:
    file = tmp_path / f"sevlaunch-{profile}.service"
    options = ("--user",) if mode == "user" else ()
    file.write_text(unit_of(sevlaunch, PROFILES / f"{profile}.yaml", "--host", SAVED, *options))
    done = subprocess.run(
        [systemd_analyze, f"--{mode}", "verify", "--man=no", str(file)],
        env=sevlaunch.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")
    # What it says of other units of this machine does not matter.
    assert file.name not in done.stderr, done.stderr


def test_the_system_unit_is_hardened(sevlaunch: Command, systemd_analyze: str, tmp_path: Path) -> None:
    file = tmp_path / "sevlaunch-sev.service"
    file.write_text(unit_of(sevlaunch, PROFILES / "sev.yaml", "--host", SAVED))
    done = subprocess.run(
        [systemd_analyze, "security", "--offline=yes", "--threshold=25", str(file)],
        capture_output=True,
        text=True,
        check=False,
    )
    if "offline" in done.stderr and done.returncode:
        pytest.skip(f"this systemd-analyze is too old to judge a file: {done.stderr.strip()}")
    assert done.returncode == 0, done.stdout.splitlines()[-1]


def test_the_unit_gives_the_guest_its_devices_and_its_lock_limit_and_no_more(sevlaunch: Command) -> None:
    host = Host.load(SAVED)
    text = unit_of(sevlaunch, PROFILES / "sev.yaml", "--host", SAVED)
    plan = resolve(loads((PROFILES / "sev.yaml").read_text(), file="sev.yaml", base=PROFILES), host)
    assert settings(text, "DevicePolicy") == ["closed"]
    assert settings(text, "DeviceAllow") == ["/dev/kvm rw", "/dev/sev rw"]
    assert settings(text, "LimitMEMLOCK") == [str(plan.memory.lock_bytes)]
    assert settings(text, "Type") == ["notify"]
    assert settings(text, "ExecStart")[0].endswith("sev.yaml --foreground --down-timeout 90")
    assert settings(unit_of(sevlaunch, PLAIN, "--set", "accel=tcg"), "DeviceAllow") == []
    assert settings(unit_of(sevlaunch, PLAIN), "LimitMEMLOCK") == []


def test_writable_images_networks_and_limits_show_in_the_unit() -> None:
    host = Host.load(SAVED)
    text = (
        "name: a b\nmemory: {size: 1G, hard_limit: auto}\ndisks: [{path: /srv/d 1.qcow2}, {path: /srv/r, read_only: "
        "true}, {path: /dev/vg/lv}]\nnetworks: [{type: bridge, bridge: br0}]\nvsock: auto\n"
    )
    cgroup = replace(host.memory.cgroup, parent="/sys/fs/cgroup")
    host = replace(host, memory=replace(host.memory, cgroup=cgroup))
    plan = resolve(loads(text), host)
    assert plan.memory.limit
    unit = systemd_unit(plan, Service(("sevlaunch",), ("/p.yaml",), False))
    assert settings(unit, "ReadWritePaths") == ['"/srv/d 1.qcow2"']
    assert set(settings(unit, "DeviceAllow")) == {
        f"{device} rw" for device in ("/dev/kvm", "/dev/net/tun", "/dev/vhost-vsock", "/dev/vg/lv")
    }
    # Root makes the tap interface before QEMU starts: nothing set-uid is needed for it.
    assert settings(unit, "NoNewPrivileges") == ["yes"]
    assert "AF_VSOCK" in settings(unit, "RestrictAddressFamilies")[0]
    assert int(settings(unit, "MemoryMax")[0]) > plan.memory.limit.size.value
    assert settings(unit, "ExecStart") == [
        "sevlaunch up /p.yaml --set memory.hard_limit=null --foreground --down-timeout 90"
    ]


@pytest.mark.parametrize(
    ("word", "quoted"),
    [
        ("/a/b-c.yaml", "/a/b-c.yaml"),
        ("x=%i", "x=%%i"),
        ("$HOME", "$HOME"),
        ('a "b" \\', '"a \\"b\\" \\\\"'),
        ("two\nlines\tx", '"two\\x0alines\\x09x"'),
        ("a\rUser=evil\r", '"a\\x0dUser=evil\\x0d"'),
        ("\x85\u2028\x1b\udcff", '"\\xc2\\x85\\xe2\\x80\\xa8\\x1b\\xff"'),
        ("", '""'),
        (";", '";"'),
    ],
)
def test_nothing_in_a_word_is_expanded_by_systemd(word: str, quoted: str) -> None:
    assert quote(word) == quoted
    assert exec_line(word) == quoted.replace("$", "$$")


@pytest.mark.parametrize("sign", ["\r", "\n", "\x0b", "\x1b", "\x85", "\u2028"])
@pytest.mark.parametrize(
    "key",
    [
        "disks: [{{path: {}, format: raw}}]",
        "shares: [{{path: {}, tag: t}}]",
        "rng: {{source: {}}}",
        "firmware: {{code: /c, nvram: {}}}",
    ],
)
def test_no_path_begins_a_line_of_the_unit(key: str, sign: str) -> None:
    path = json.dumps(f"/dev/a{sign}ExecStartPre=evil{sign}x")
    loaded = loads(f"name: g\n{key.format(path)}\n")
    with pytest.raises(ProfileError, match="a systemd unit can't name /dev/a"):
        systemd_unit(resolve(loaded, Host.load(SAVED)), Service(("sevlaunch",), ("/p.yaml",), False))


def test_the_units_name_holds_what_systemd_allows() -> None:
    assert unit_name("web.1") == "sevlaunch-web.1.service"
    assert unit_name("a b-ö") == "sevlaunch-a\\x20b\\x2d\\xc3\\xb6.service"


def test_systemd_is_told_when_the_guest_is_up(sevlaunch: Command) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(sevlaunch.base / "notify"))
        manager.settimeout(60)
        sevlaunch.environment["NOTIFY_SOCKET"] = str(sevlaunch.base / "notify")
        process = sevlaunch.start(
            "up", PLAIN, *some_qemu(), "--foreground", "--down-timeout", "0", "--set", "accel=tcg"
        )
        try:
            told = manager.recv(4096).decode()
            assert told == "READY=1\nSTATUS=plain is running"
            assert sevlaunch("status", "plain", "--format", "json").json["state"] == "running"
            process.send_signal(signal.SIGTERM)
            assert finish(process).code == 0
            assert manager.recv(4096).decode() == "STATUS=plain is taken down"
        finally:
            process.kill()
            process.wait()
    assert sevlaunch.left_behind() == []


def test_an_abstract_socket_is_told_and_a_missing_one_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0sevlaunch-test")
        manager.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", "@sevlaunch-test")
        notify_service("READY=1")
        assert manager.recv(64) == b"READY=1"
    with pytest.raises(Exception, match="can't tell the service manager"):
        notify_service("READY=1")
    monkeypatch.delenv("NOTIFY_SOCKET")
    notify_service("READY=1")


def test_a_loop_of_reboots_ends() -> None:
    now = 0.0
    limit = RelaunchLimit(clock=lambda: now)
    for _ in range(RELAUNCHES):
        limit.count("g", "rebooted")
    with pytest.raises(QemuError, match=r"g rebooted 6 times within 300 s"):
        limit.count("g", "rebooted")
    now = WITHIN_SECONDS + 1
    limit.count("g", "rebooted")


def test_systemd_is_told_once_the_guest_is_ready(sevlaunch: Command, demo: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(sevlaunch.base / "notify"))
        manager.settimeout(300)
        sevlaunch.environment["NOTIFY_SOCKET"] = str(sevlaunch.base / "notify")
        waiting = ("--wait", "console:demo: ready", "--wait-timeout", "280")
        process = sevlaunch.start("up", demo, *some_qemu(), "--foreground", *waiting)
        try:
            assert manager.recv(4096).decode() == "READY=1\nSTATUS=demo is running"
            assert b"demo: ready" in sevlaunch.console_logs("demo")[0].read_bytes()
            sevlaunch("down", "demo", "--now")
            assert finish(process).code == 0
        finally:
            process.kill()
            process.wait()


def test_a_service_that_does_not_get_ready_is_ended(sevlaunch: Command) -> None:
    words = ("up", PLAIN, *some_qemu(), "--foreground", "--wait", "console:never", "--wait-timeout", "1")
    result = sevlaunch(*words, check=6)
    assert "plain was not ready within 1 s" in result.stderr
    assert result.stdout == ""
    assert sevlaunch.left_behind() == []
