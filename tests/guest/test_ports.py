"""Ports of the host that lead into guests: named ones, and free ones that QEMU takes."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from sevlaunch.errors import QmpError
from sevlaunch.guest.user_network import with_bound_ports
from sevlaunch.ports import ForwardInfo
from tests import needs
from tests.conftest import Command
from tests.guest.support import JSON, PLAIN, finish, nothing_left, some_qemu, with_qemu
from tests.plan.test_quoting import free_port

FREE = "['tcp:127.0.0.1:0:80', 'tcp:0:80', 'udp:0.0.0.0:0:53']"


def networks(*members: str) -> tuple[str, ...]:
    """The options for a guest with these networks."""
    return ("--set", f"networks=[{', '.join(members)}]")


def listening(pid: int) -> set[tuple[str, int]]:
    """The TCP and UDP ports of IPv4 that a process has bound."""
    own = {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}
    found = set()
    for protocol in ("tcp", "udp"):
        for line in Path(f"/proc/{pid}/net/{protocol}").read_text().splitlines()[1:]:
            fields = line.split()
            if f"socket:[{fields[9]}]" in own:
                found.add((protocol, int(fields[1].rpartition(":")[2], 16)))
    return found


def ports_of(document: dict[str, Any]) -> list[tuple[str, int]]:
    """The forwarded ports of a guest's status."""
    return [(one["protocol"], one["port"]) for one in document["forwards"]]


def test_free_ports_are_those_that_qemu_has_bound(qemu_binary: str, sevlaunch: Command) -> None:
    port = free_port()
    first = f"{{type: user, ssh: auto, forward: {FREE}}}"
    second = f"{{type: user, forward: ['tcp:0:80', 'tcp:{port}:81']}}"
    up = sevlaunch("up", PLAIN, "--paused", *JSON, *with_qemu(qemu_binary), *networks(first, second)).json
    assert [(one["protocol"], one["host"], one["guest_port"]) for one in up["forwards"]] == [
        ("tcp", "127.0.0.1", 22),
        ("tcp", "127.0.0.1", 80),
        ("tcp", "127.0.0.1", 80),
        ("udp", "0.0.0.0", 53),
        ("tcp", "127.0.0.1", 80),
        ("tcp", "127.0.0.1", 81),
    ]
    assert up["ssh"] == {"host": "127.0.0.1", "port": up["forwards"][0]["port"], "user": None}
    assert ports_of(up)[-1] == ("tcp", port)
    assert set(ports_of(up)) == listening(up["pid"])
    assert max(Counter(ports_of(up)).values()) == 1
    status = sevlaunch("status", "plain", *JSON).json
    assert (status["ssh"], status["forwards"]) == (up["ssh"], up["forwards"])
    (listed,) = sevlaunch("ps", *JSON).json
    assert listed["ssh"] == up["ssh"]
    text = sevlaunch("status", "plain").stdout
    assert f"ssh          127.0.0.1 port {up['ssh']['port']}: sevlaunch ssh plain\n" in text
    assert f"forward      tcp 127.0.0.1:{port} to port 81\n" in text
    sevlaunch("down", "plain", "--now")
    nothing_left(sevlaunch)


def test_a_guest_without_forwards_has_none_in_its_status(sevlaunch: Command) -> None:
    up = sevlaunch("up", PLAIN, "--paused", *JSON, *some_qemu(), *networks("{type: user}")).json
    assert up["ssh"] is None
    assert "forwards" not in up
    sevlaunch("down", "plain", "--now")


def test_passt_takes_the_port_that_is_named(sevlaunch: Command) -> None:
    needs.program("passt", "passt")
    port = free_port()
    up = sevlaunch("up", PLAIN, "--paused", *JSON, *some_qemu(), *networks(f"{{type: passt, ssh: {port}}}")).json
    assert up["ssh"] == {"host": "127.0.0.1", "port": port, "user": None}
    sevlaunch("down", "plain", "--now")
    nothing_left(sevlaunch)


def test_guests_of_two_commands_at_once_share_no_port(sevlaunch: Command) -> None:
    options = ("--paused", *JSON, *some_qemu(), *networks(f"{{type: user, ssh: auto, forward: {FREE}}}"))
    commands = [sevlaunch.start("up", PLAIN, "--name", name, "--count", "5", *options) for name in ("a", "b")]
    started = []
    for command in commands:
        done = finish(command)
        assert done.code == 0, done.stderr
        started += done.json
    ports = [port for one in started for port in ports_of(one)]
    assert len(ports) == 40
    assert len(set(ports)) == 40
    for one in started:
        assert set(ports_of(one)) == listening(one["pid"])
    sevlaunch("down", "--all", "--now")
    nothing_left(sevlaunch)


TABLE = (
    "Hub -1 (net0):\r\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n"
    "  TCP[HOST_FORWARD]  11               * 4001       10.0.2.15    80     0     0\r\n"
    "  TCP[ESTABLISHED]   14       127.0.0.1 4001       10.0.2.15    80     0     0\r\n"
)


def test_a_port_that_qemu_does_not_tell_is_an_error() -> None:
    wanted = ForwardInfo("tcp", "0.0.0.0", 0, 80)
    assert with_bound_ports(TABLE, "net0", [wanted]) == [ForwardInfo("tcp", "0.0.0.0", 4001, 80)]
    for network, other in (("net1", wanted), ("net0", ForwardInfo("udp", "0.0.0.0", 0, 80))):
        with pytest.raises(QmpError, match=re.escape("does not tell which")):
            with_bound_ports(TABLE, network, [other])
    with pytest.raises(QmpError, match="leads to port 80"):
        with_bound_ports(TABLE, "net0", [wanted, wanted])
