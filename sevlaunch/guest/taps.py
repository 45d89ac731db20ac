"""Tap interfaces that are open before QEMU starts, so that its sandbox lets it start no program."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sevlaunch.errors import HostError, Problem
from sevlaunch.guest.process import find_program
from sevlaunch.host.interfaces import find_interface
from sevlaunch.plan.needs import Descriptor
from sevlaunch.plan.network_backends import BRIDGE_HELPER

# Seconds that the helper may take: it makes an interface, and sends its descriptor.
_HELPER_LIMIT = 10.0
_ALLOW = "allow {bridge} in /etc/qemu/bridge.conf: a line `allow {bridge}`; the file belongs to root"
_RIGHTS = "as root: chmod u+s {helper}, or setcap cap_net_admin+ep {helper}"


@contextmanager
def opened(descriptors: Sequence[Descriptor]) -> Iterator[dict[int, int]]:
    """The open descriptors, by their numbers in the plan; what was opened is closed again at the end of the block.

    :raise HostError: where one can't be had.
    """
    with ExitStack() as stack:
        numbers: dict[int, int] = {}
        for descriptor in descriptors:
            if descriptor.kind == "given":
                numbers[descriptor.number] = descriptor.number
                continue
            number = _on_bridge(descriptor.name) if descriptor.kind == "bridge" else _macvtap(descriptor.name)
            stack.callback(os.close, number)
            numbers[descriptor.number] = number
        yield numbers


def _on_bridge(bridge: str) -> int:
    """A new tap interface on a bridge, as QEMU's qemu-bridge-helper.c sends it: SCM_RIGHTS beside one byte."""
    helper = find_program(BRIDGE_HELPER.program, BRIDGE_HELPER.fallbacks, BRIDGE_HELPER.remedy)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        try:
            done = subprocess.run(
                [helper, "--use-vnet", f"--fd={theirs.fileno()}", f"--br={bridge}"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
                timeout=_HELPER_LIMIT,
                check=False,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise HostError(f"no interface on the bridge {bridge}: can't run {helper}: {error}") from error
        theirs.close()
        received = socket.recv_fds(ours, 1, 1)[1]
    if received:
        return received[0]
    said = done.stdout.decode(errors="replace").strip()
    advice = _ALLOW if "acl" in said else _RIGHTS if "not permitted" in said else ""
    raise HostError(
        f"no interface on the bridge {bridge}: qemu-bridge-helper ended with exit code {done.returncode}",
        problems=[Problem(line) for line in said.splitlines()],
        hint=advice.format(bridge=bridge, helper=helper),
    )


def _macvtap(name: str) -> int:
    """A queue of a macvtap interface: its device file has the interface's number, Documentation of macvtap.c."""
    interface = find_interface(name)
    if interface is None:
        raise HostError(f"the macvtap interface {name} is gone")
    device = Path(f"/dev/tap{interface.index}")
    try:
        return os.open(device, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise HostError(f"can't open {device}, the device of {name}: {error.strerror}") from error
