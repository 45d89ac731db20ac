"""`up` with several profiles, with --count and with --wait."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import pytest

from sevlaunch import sync
from sevlaunch.api import parse_condition
from sevlaunch.errors import GuestTimeout
from tests.conftest import PROFILES, Command, wait_until
from tests.guest.support import PLAIN, fake_qemu, finish, listed, nothing_left, some_qemu

SMALL = ("--set", "memory=64M", "--paused", *some_qemu())


def free_port() -> int:
    """A TCP port that nobody uses at this moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def test_several_guests_of_a_profile(sevlaunch: Command) -> None:
    started = sevlaunch("up", PLAIN, "--count", "4", *SMALL, "--format", "json").json
    assert [one["name"] for one in started] == ["plain-1", "plain-2", "plain-3", "plain-4"]
    assert listed(sevlaunch) == dict.fromkeys(("plain-1", "plain-2", "plain-3", "plain-4"), "paused")
    sevlaunch("down", "--all", "--now")
    nothing_left(sevlaunch)


def test_one_that_fails_does_not_take_the_others_down(sevlaunch: Command, base: Path) -> None:
    sevlaunch("up", PLAIN, "--name", "plain-2", *SMALL)
    result = sevlaunch("up", PLAIN, "--count", "3", *SMALL, check=1)
    assert "2 of 3 guests run" in result.stdout
    (failed,) = [line for line in result.stdout.splitlines() if "failed" in line]
    assert "plain-2" in failed
    assert "runs already" in failed
    assert "runs already" in result.stderr
    assert len(listed(sevlaunch)) == 3
    sevlaunch("down", "--all", "--now")
    nothing_left(sevlaunch)


def test_a_mistake_in_one_profile_starts_none(sevlaunch: Command, base: Path) -> None:
    wrong = base / "wrong.yaml"
    wrong.write_text("memry: 1G\n")
    result = sevlaunch("up", PLAIN, wrong, *SMALL, check=3)
    assert "memry" in result.stderr
    nothing_left(sevlaunch)


def test_several_profiles_and_a_signal_in_the_midst(sevlaunch: Command) -> None:
    process = sevlaunch.start("up", PLAIN, "--count", "3", *fake_qemu(sevlaunch, "silent"))
    wait_until(lambda: len(listed(sevlaunch)) == 3, 30, "three starts")
    process.send_signal(signal.SIGINT)
    assert finish(process, 30).code == 130
    nothing_left(sevlaunch)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--count", "2", "--foreground"], "--foreground, --evidence, --lock and --verify are for one guest"),
        (["--count", "2", "--evidence", "/tmp/x"], "--foreground, --evidence, --lock and --verify are for one guest"),
        (["--wait", "console:x", "--paused"], "leave --paused out"),
        (["--wait", "consol:x"], "vsock:PORT, qga, ssh or cloud-init, found 'consol:x'"),
        (["--wait", "port:localhost:0"], "wanted console:TEXT"),
        (["--wait", "vsock:x"], "wanted console:TEXT"),
        # Python reads no number of so many digits.
        (["--wait", f"vsock:{'9' * 5000}"], "wanted console:TEXT"),
        (["--wait", f"port:localhost:{'9' * 5000}"], "wanted console:TEXT"),
    ],
)
def test_what_does_not_go_together(arguments: list[str], told: str, sevlaunch: Command) -> None:
    assert told in sevlaunch("up", PLAIN, *arguments, check=2).stderr
    nothing_left(sevlaunch)


def test_waiting_for_the_console_and_the_agent(sevlaunch: Command, demo: Path) -> None:
    waits = ("--wait", "console:demo: ready", "--wait", "qga")
    sevlaunch("up", demo, *waits, "--set", "guest_agent=true", limit=240)
    assert "demo: ready" in sevlaunch("logs", "demo").stdout
    sevlaunch("down", "demo", "--now")


def test_waiting_for_a_port(sevlaunch: Command) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        sevlaunch("up", PLAIN, *some_qemu(), "--wait", f"port:127.0.0.1:{listener.getsockname()[1]}")
    sevlaunch("down", "plain", "--now")


@pytest.mark.parametrize("kind", ["console", "port"])
def test_a_guest_that_does_not_become_ready_is_ended(kind: str, sevlaunch: Command) -> None:
    condition = "console:never" if kind == "console" else f"port:127.0.0.1:{free_port()}"
    result = sevlaunch("up", PLAIN, *some_qemu(), "--wait", condition, "--wait-timeout", "0.5", check=6)
    assert "plain was not ready within 0.5 s" in result.stderr
    nothing_left(sevlaunch)


def test_a_forwarded_port_that_the_guest_refuses_is_not_ready(sevlaunch: Command, demo: Path) -> None:
    port = free_port()
    network = f"networks=[{{type: user, forward: ['tcp:127.0.0.1:{port}:22']}}]"
    ready = ("--wait", "console:demo: ready", "--wait-timeout", "300")
    sevlaunch("up", demo, "--set", network, *ready, limit=330)
    opens = parse_condition(f"port:127.0.0.1:{port}")
    with sync.attach("demo", root=sevlaunch.runtime) as guest:
        with pytest.raises(GuestTimeout, match=f"port:127.0.0.1:{port}"):
            guest.wait_until_ready(opens, limit=5)
        # It is, once somebody listens there.
        guest.console.send("while sleep 600 | nc -l -p 22; do :; done &\n")
        guest.wait_until_ready(opens, limit=60)
    sevlaunch("down", "demo", "--now")
    nothing_left(sevlaunch)


def test_a_port_that_the_network_alone_accepts_is_not_ready(sevlaunch: Command) -> None:
    port = free_port()
    network = ("--set", f"networks=[{{type: user, forward: ['tcp:127.0.0.1:{port}:22']}}]")
    wait = ("--wait", f"port:127.0.0.1:{port}", "--wait-timeout", "2")
    # No system runs in this guest: QEMU's network holds the connection until somebody in the guest answers.
    assert "was not ready within 2 s" in sevlaunch("up", PLAIN, *some_qemu(), *network, *wait, check=6).stderr
    nothing_left(sevlaunch)


@pytest.mark.parametrize(("condition", "told"), [("vsock:22", "has no vsock"), ("qga", "has no channel")])
def test_a_guest_without_what_is_waited_for(condition: str, told: str, sevlaunch: Command) -> None:
    assert told in sevlaunch("up", PROFILES / "plain.yaml", *some_qemu(), "--wait", condition, check=2).stderr
    nothing_left(sevlaunch)
