"""What goes through a guest's networks on interfaces of the host: an address from a DHCP server there, and pings."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from sevlaunch.plan.network_backends import BRIDGE_HELPER
from tests import needs
from tests.conftest import Command, wait_for_console, wait_until
from tests.guest.conftest import ip
from tests.guest.support import MACVTAP_MAC, ordinary_user, with_device

pytestmark = pytest.mark.long

LIMIT = 300
# RFC 2544, which keeps them for tests: nobody else has these. A process has three networks of its own.
NETWORKS = [f"198.18.{os.getpid() % 80 * 3 + number}" for number in range(3)]
SERVER = """\
interface {interface}
start {network}.2
end {network}.2
max_leases 1
lease_file {folder}/{interface}.leases
pidfile {folder}/{interface}.pid
option subnet 255.255.255.0
"""


@pytest.fixture
def busybox(base: Path) -> Path:
    """The demo guest's busybox: DHCP server and ping of the host."""
    program = base / "busybox"
    program.write_bytes(member((needs.demo_guest() / "initrd.img").read_bytes(), "bin/busybox"))
    program.chmod(0o755)
    return program


def member(archive: bytes, wanted: str) -> bytes:
    """A file of a newc archive: the kernel's early-userspace/buffer-format document."""
    start = 0
    while True:
        fields = [int(archive[start + at : start + at + 8], 16) for at in range(6, 110, 8)]
        size, name_size = fields[6], fields[11]
        content = (start + 110 + name_size + 3) & ~3
        if archive[start + 110 : start + 109 + name_size] == wanted.encode():
            return archive[content : content + size]
        start = (content + size + 3) & ~3


@contextmanager
def served(interface: str, network: str, busybox: Path) -> Iterator[None]:
    """The host is NETWORK.1 on an interface, and gives NETWORK.2 to who asks there."""
    configuration = busybox.parent / f"{interface}.conf"
    configuration.write_text(SERVER.format(interface=interface, network=network, folder=busybox.parent))
    (busybox.parent / f"{interface}.leases").touch()
    ip("addr", "add", f"{network}.1/24", "dev", interface)
    ip("link", "set", interface, "up")
    quiet = subprocess.DEVNULL
    server = subprocess.Popen([busybox, "udhcpd", "-f", configuration], stdout=quiet, stderr=quiet)
    try:
        yield
        assert server.poll() is None
    finally:
        server.kill()
        server.wait()


def peer_of(macvtap: str) -> str:
    """The other end of the cable below a macvtap interface."""
    [below] = Path(f"/sys/class/net/{macvtap}").glob("lower_*")
    return socket.if_indextoname(int((below / "iflink").read_text()))


def exchanged(command: Command, busybox: Path, networks: Sequence[str]) -> None:
    """Each of the guest's networks has its address; it reaches the host there, and the host the guest."""
    wait_for_console(command, "demo", "demo: ready", limit=LIMIT)
    leased = "ip link set $i up; udhcpc -i $i -s /etc/udhcpc.script -f -q -n -t 20 -T 1 >/dev/null 2>&1"
    # Of what is typed, the console shows the dollar signs; of what is printed, the numbers.
    script = "".join(f"i=eth{number}; {leased}\n" for number in range(1, len(networks)))
    script += "ip -o -4 addr\n"
    script += "".join(f"ping -c 3 {network}.1 && echo {network}=answered$?\n" for network in networks)
    with subprocess.Popen(
        command.argv("console", "demo"), env=command.environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as shell:
        assert shell.stdin
        shell.stdin.write(script.encode())
        shell.stdin.flush()
        for network in networks:
            console = wait_for_console(command, "demo", f"{network}=answered0", limit=LIMIT)
        shell.kill()
    for network in networks:
        assert f"{network}.2/24" in console
        ping = [str(busybox), "ping", "-c", "3", f"{network}.2"]
        assert " 0% packet loss" in subprocess.run(ping, capture_output=True, text=True, timeout=60).stdout


def test_a_guest_on_a_bridge_a_tap_and_a_macvtap_interface_has_an_address_and_is_reached(
    bridge: str, tap: str, macvtap: str, demo: Path, busybox: Path, sevlaunch: Command
) -> None:
    members = (
        f"{{type: bridge, bridge: {bridge}}}",
        f"{{type: tap, interface: {tap}}}",
        f"{{type: macvtap, interface: {macvtap}, mac: '{MACVTAP_MAC}'}}",
    )
    with ExitStack() as servers:
        for interface, network in zip((bridge, tap, peer_of(macvtap)), NETWORKS, strict=True):
            servers.enter_context(served(interface, network, busybox))
        sevlaunch("up", demo, "--set", f"networks=[{', '.join(members)}]")
        exchanged(sevlaunch, busybox, NETWORKS)
        sevlaunch("down", "demo", "--now")
    wait_until(lambda: sevlaunch.left_behind() == [], what="the end of all that belongs to the guest")


def test_the_guest_of_an_ordinary_user_on_a_bridge_has_an_address_and_is_reached(
    bridge: str, demo: Path, busybox: Path, base: Path
) -> None:
    user = ordinary_user(base)
    with_device(user, "/dev/net/tun")
    helper = base / "bin/qemu-bridge-helper"
    helper.parent.mkdir()
    shutil.copy(next(place for place in BRIDGE_HELPER.fallbacks if Path(place).exists()), helper)
    helper.chmod(stat.S_ISUID | 0o755)
    user.environment["PATH"] = f"{helper.parent}:{user.environment['PATH']}"
    with served(bridge, NETWORKS[0], busybox):
        user("up", demo, "--set", f"networks=[{{type: bridge, bridge: {bridge}}}]")
        exchanged(user, busybox, NETWORKS[:1])
        user("down", "demo", "--now")
    assert user.left_behind() == []
