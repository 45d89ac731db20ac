"""`restart`: a guest is taken down and started again as it was, by what its profile says now, or left as it is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from sevlaunch import api, sync
from tests import needs
from tests.conftest import PROFILES, Command, wait_until
from tests.guest.support import JSON, PLAIN, ended, listed, no_traceback, nothing_left, some_qemu
from tests.rehearsal.owner import make_session

NOW = ("--now", *JSON)


def profile_of(command: Command, **keys: Any) -> Path:
    """A profile of a plain guest ``g``."""
    file = command.base / "g.yaml"
    file.write_text(json.dumps({"accel": "tcg", "memory": "64M", **keys}))
    return file


def test_it_has_the_profile_as_it_is_now_and_the_overrides_of_its_start(sevlaunch: Command) -> None:
    profile = profile_of(sevlaunch)
    (sevlaunch.base / "a.raw").write_bytes(bytes(1 << 20))
    options = ("--name", "web", "--set", "memory=96M", "--set", "disks=[{path: a.raw}]", *some_qemu())
    first = sevlaunch("up", profile.name, *options, *JSON, cwd=sevlaunch.base).json
    profile_of(sevlaunch, cpu={"count": 2})
    second = sevlaunch("restart", "web", *NOW).json
    assert second["pid"] != first["pid"] and second["vcpus"] == 2
    assert (second["name"], second["state"]) == ("web", "running")
    assert "size=96M" in second["command"]
    assert any(f"file.filename={sevlaunch.base}/a.raw" in word for word in second["command"])
    # Once more, and of many of one profile the one that is meant.
    assert sevlaunch("restart", "web", *NOW).json["vcpus"] == 2
    sevlaunch("up", profile, "--count", "2", *some_qemu())
    others = listed(sevlaunch).keys()
    assert sevlaunch("restart", "g-2", *NOW).json["name"] == "g-2"
    assert listed(sevlaunch).keys() == others
    sevlaunch("down", "--all", "--now")
    nothing_left(sevlaunch)


def test_an_overlay_is_kept_and_afresh_it_is_not(sevlaunch: Command) -> None:
    needs.program("qemu-img", "qemu-utils")
    image = sevlaunch.base / "system.raw"
    image.write_bytes(bytes(1 << 20))
    sevlaunch("up", profile_of(sevlaunch, disks=[{"image": str(image)}]), *some_qemu())
    (overlay,) = (sevlaunch.state / "g").glob("*/disk0.qcow2")
    program = needs.program("qemu-io", "qemu-utils")
    sevlaunch("restart", "g", *NOW)
    sevlaunch("down", "g", "--now")
    subprocess.run([program, "-f", "qcow2", "-c", "write -q -P 9 0 64k", overlay], check=True)
    written = overlay.stat().st_blocks
    sevlaunch("up", profile_of(sevlaunch, disks=[{"image": str(image)}]), *some_qemu())
    sevlaunch("restart", "g", *NOW)
    assert overlay.stat().st_blocks >= written
    sevlaunch("restart", "g", "--fresh", *NOW)
    assert overlay.stat().st_blocks < written
    # An image that has changed would keep the new start from its disk: the guest runs on.
    pid = sevlaunch("status", "g", *JSON).json["pid"]
    os.utime(image)
    assert "before somebody changed it" in sevlaunch("restart", "g", *NOW, check=4).stderr
    assert sevlaunch("status", "g", *JSON).json["pid"] == pid
    sevlaunch("restart", "g", "--fresh", *NOW)
    sevlaunch("down", "g", "--now")
    nothing_left(sevlaunch)


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("{memory: 64Q}", 3, "wanted a size"),
        ("{disks: [{path: missing.raw}]}", 4, "no such file"),
        ("{qemu: {binary: /nowhere/qemu}}", 4, "wanted the QEMU binary /nowhere/qemu"),
        (None, 3, "is gone, and what it says now is what would count"),
    ],
)
def test_a_profile_that_does_not_work_any_more_costs_nothing(
    text: str | None, code: int, message: str, sevlaunch: Command, system_qemu: str
) -> None:
    profile = profile_of(sevlaunch)
    pid = sevlaunch("up", profile, "--paused", *JSON).json["pid"]
    if text is None:
        profile.unlink()
    else:
        profile.write_text(text)
    refused = sevlaunch("restart", "g", *NOW, check=code)
    assert message in refused.stderr
    no_traceback(refused)
    assert sevlaunch("status", "g", *JSON).json["pid"] == pid
    sevlaunch("down", "g", "--now")


def test_it_is_paused_if_it_was_and_not_waited_for(sevlaunch: Command) -> None:
    sevlaunch("up", PLAIN, "--paused", *some_qemu())
    assert "started paused" in sevlaunch("restart", "plain", "--now", "--wait", "qga", check=2).stderr
    assert sevlaunch("restart", "plain", *NOW).json["state"] == "paused"
    sevlaunch("down", "plain", "--now")


def test_one_that_has_ended_is_started_again(sevlaunch: Command) -> None:
    pid = sevlaunch("up", PLAIN, *some_qemu(), *JSON).json["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: ended(pid), what="QEMU's end")
    assert sevlaunch("restart", "plain", *JSON).json["state"] == "running"
    sevlaunch("down", "plain", "--now")
    assert "no guest 'plain' is known" in sevlaunch("restart", "plain", check=10).stderr


def test_one_of_a_foreground_is_left_to_it(sevlaunch: Command) -> None:
    launcher = sevlaunch.start("up", PLAIN, "--foreground", "--down-timeout", "0", *some_qemu())
    wait_until(lambda: listed(sevlaunch).get("plain") == "running", what="the guest")
    refused = sevlaunch("restart", "plain", check=2)
    assert "belongs to an `up --foreground`" in refused.stderr and "systemctl restart" in refused.stderr
    launcher.send_signal(signal.SIGTERM)
    launcher.communicate(timeout=120)
    nothing_left(sevlaunch)


def test_a_guest_that_an_owner_may_have_verified_is_not_started_without_one(sevlaunch: Command) -> None:
    needs.rehearsal()
    profile = (PROFILES / "sev.yaml", "--rehearse", "--set", "memory=64M")
    sevlaunch("up", *profile, "--paused", "--set", "first_boot.hostname=hunter2", *some_qemu())
    refused = sevlaunch("restart", "sev", check=2)
    # A password's hash may stand there.
    assert "--set first_boot.hostname=..." in refused.stderr
    assert "hunter2" not in refused.stderr
    assert oct((sevlaunch.runtime / "sev/guest.json").stat().st_mode & 0o777) == "0o600"
    assert "was started paused, so that its owner could verify the launch" in refused.stderr
    assert "sevlaunch down sev && sevlaunch up " in refused.stderr and "--rehearse --paused" in refused.stderr
    sevlaunch("down", "sev", "--now")
    pid = sevlaunch("up", *profile, *some_qemu(), *JSON).json["pid"]
    again = sevlaunch("restart", "sev", *NOW).json
    assert again["pid"] != pid and again["rehearsal"]
    sevlaunch("down", "sev", "--now")
    nothing_left(sevlaunch)


@pytest.mark.parametrize("verify", [False, True])
def test_a_launch_that_is_bound_to_a_session_is_its_owners_to_repeat(verify: bool, sevlaunch: Command) -> None:
    needs.rehearsal()
    session = make_session(sevlaunch, 0x33)
    options = ("--verify", "--tik", str(session.tik)) if verify else ()
    profile = (str(PROFILES / "sev.yaml"), "--rehearse", "--set", "memory=64M", *session.overrides)
    pid = sevlaunch("up", *profile, *options, *some_qemu(), *JSON).json["pid"]
    refused = sevlaunch("restart", "sev", check=2)
    assert ("was verified before it ran" if verify else "bound to its owner's session") in refused.stderr
    assert f"--set security.dh_cert={sevlaunch.base}/godh.b64" in refused.stderr
    # A KVM that can't run firmware stops the guest; its QEMU is there.
    assert sevlaunch("status", "sev", *JSON).json["pid"] == pid
    sevlaunch("down", "sev", "--now")


def test_a_start_that_fails_after_all_says_that_the_guest_is_down(sevlaunch: Command) -> None:
    sevlaunch("up", profile_of(sevlaunch), *some_qemu())
    refused = sevlaunch("restart", "g", "--now", "--wait", "port:127.0.0.1:1", "--wait-timeout", "0.1", check=6)
    assert "g was taken down before that, and is down" in refused.stderr
    assert listed(sevlaunch) == {}
    nothing_left(sevlaunch)


def test_a_program_restarts_what_a_program_or_a_command_brought_up(
    sevlaunch: Command, monkeypatch: pytest.MonkeyPatch, system_qemu: str
) -> None:
    for name in ("XDG_RUNTIME_DIR", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, sevlaunch.environment[name])
    profile = profile_of(sevlaunch)
    (planned,) = sync.plan_guests([profile])
    (first,) = sync.bring_up([planned.plan], sync.StartOptions(paused=True))
    second = sync.restart(sync.plan_restart("g"), now=True)
    assert first.evidence and second.evidence and first.evidence.pid != second.evidence.pid
    assert second.evidence.state == "paused"
    sync.take_down("g", now=True)
    with sync.launch(planned.plan, paused=True) as guest:
        guest.detach()
    with pytest.raises(api.UsageError, match="was not started by `sevlaunch up`"):
        sync.plan_restart("g")
    sync.take_down("g", now=True)
