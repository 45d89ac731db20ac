"""A port that opens over vsock. The kernel's own loopback stands in for the guest: CID 1 is this machine."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sevlaunch.errors import UsageError
from sevlaunch.guest import vsock_connection
from sevlaunch.guest.readiness import parse_condition
from tests.guest.own_kernel import passes_in_own_kernel

HERE = socket.VMADDR_CID_LOCAL if hasattr(socket, "VMADDR_CID_LOCAL") else 1
MODULES = ("vsock", "vmw_vsock_virtio_transport_common", "vsock_loopback")


def bound() -> socket.socket:
    """A socket with a port of its own, where nobody listens yet."""
    one = socket.socket(socket.AF_VSOCK)
    one.bind((socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY))
    return one


def loops_back() -> bool:
    """Whether this kernel connects to itself over vsock."""
    try:
        with bound() as listener, socket.socket(socket.AF_VSOCK) as caller:
            listener.listen()
            caller.settimeout(1)
            caller.connect((HERE, listener.getsockname()[1]))
    except OSError:
        return False
    return True


async def test_a_port_that_opens_over_vsock_is_noticed(base: Path, request: pytest.FixtureRequest) -> None:
    if not loops_back():
        why = "this kernel does not connect to itself over vsock"
        passes_in_own_kernel(request.node.nodeid, why, base, memory=1 << 30, modules=MODULES)
        return
    guest: Any = SimpleNamespace(name="here", vsock_cid=HERE)
    with bound() as listener:
        waiting = asyncio.ensure_future(parse_condition(f"vsock:{listener.getsockname()[1]}").reached(guest))
        # An attempt, and the pause after it.
        await asyncio.wait([waiting], timeout=0.5)
        assert not waiting.done()
        listener.listen()
        async with asyncio.timeout(20):
            await waiting
        await asyncio.to_thread(hands_over_a_connection, listener)


def hands_over_a_connection(listener: socket.socket) -> None:
    """See that the program which connects for ssh sends the open connection through its output."""
    port = listener.getsockname()[1]
    command = [sys.executable, "-IS", vsock_connection.__file__, str(HERE)]
    listener.settimeout(20)
    own, given = socket.socketpair()
    with own, given:
        own.settimeout(20)
        subprocess.run([*command, str(port)], stdout=given.fileno(), check=True, timeout=20)
        _, [fd], _, _ = socket.recv_fds(own, 1, 1)
    with socket.socket(fileno=fd) as connection:
        connection.sendall(b"hello")
        # The first is that of the condition.
        for _ in range(2):
            accepted, _ = listener.accept()
            with accepted:
                accepted.settimeout(20)
                received = accepted.recv(5)
        assert received == b"hello"
    own, given = socket.socketpair()
    with bound() as nobody, own, given:
        words = [*command, str(nobody.getsockname()[1])]
        refused = subprocess.run(words, stdout=given.fileno(), stderr=subprocess.PIPE, check=False, timeout=20)
    assert refused.returncode == 1
    assert b"no connection to port" in refused.stderr


async def test_a_guest_without_vsock_has_no_port_there() -> None:
    guest: Any = SimpleNamespace(name="bare", vsock_cid=None)
    with pytest.raises(UsageError, match="bare has no vsock"):
        await parse_condition("vsock:1024").reached(guest)
