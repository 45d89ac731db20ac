"""Network interfaces of the host for tests of guests."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import needs
from tests.conftest import wait_until
from tests.guest.support import BRIDGE_CONFIGURATION, MACVTAP_MAC


def ip(*words: str) -> str:
    """What `ip` prints."""
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=True).stdout


@pytest.fixture
def network_rights() -> None:
    """The right to make interfaces."""
    needs.root("making network interfaces")
    needs.program("ip", "iproute2")
    if not Path("/dev/net/tun").exists():
        pytest.skip("no /dev/net/tun")


@pytest.fixture
def tap(network_rights: None) -> Iterator[str]:
    """A tap interface of one queue."""
    name = f"slt{os.getpid()}"
    ip("tuntap", "add", "dev", name, "mode", "tap")
    ip("link", "set", name, "up")
    yield name
    ip("link", "del", name)


@pytest.fixture
def wide_tap(network_rights: None) -> Iterator[str]:
    """A tap interface of several queues."""
    name = f"slw{os.getpid()}"
    ip("tuntap", "add", "dev", name, "mode", "tap", "multi_queue")
    ip("link", "set", name, "up")
    yield name
    ip("link", "del", name)


@pytest.fixture
def macvtap(network_rights: None) -> Iterator[str]:
    """A macvtap interface, on one end of a cable that leads nowhere."""
    name, below = f"slm{os.getpid()}", f"sle{os.getpid()}"
    try:
        ip("link", "add", below, "type", "veth", "peer", "name", f"{below}x")
        ip("link", "add", "link", below, "name", name, "address", MACVTAP_MAC, "type", "macvtap", "mode", "bridge")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this kernel has no macvtap: {error.stderr.strip()}")
    for interface in (below, name):
        ip("link", "set", interface, "up")
    device = Path(f"/dev/tap{socket.if_nametoindex(name)}")
    wait_until(device.exists, what=f"{device}")
    yield name
    ip("link", "del", below)


@pytest.fixture
def bridge(network_rights: None) -> Iterator[str]:
    """A bridge that qemu-bridge-helper may use."""
    if BRIDGE_CONFIGURATION.exists():
        pytest.skip(f"{BRIDGE_CONFIGURATION} is there and is not ours to change")
    name = f"slb{os.getpid()}"
    made = not BRIDGE_CONFIGURATION.parent.exists()
    BRIDGE_CONFIGURATION.parent.mkdir(exist_ok=True)
    BRIDGE_CONFIGURATION.write_text(f"allow {name}\n")
    ip("link", "add", name, "type", "bridge")
    yield name
    ip("link", "del", name)
    BRIDGE_CONFIGURATION.unlink()
    if made:
        BRIDGE_CONFIGURATION.parent.rmdir()
