"""Networks on interfaces of the host: tap, bridge, macvtap, and descriptors that a program hands in."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import stat
import struct
from pathlib import Path

import pytest

from sevlaunch.host.interfaces import find_interface, tap_of
from sevlaunch.plan.network_backends import BRIDGE_HELPER
from tests.conftest import VERSIONS, Command, qemu_binary_of, wait_until
from tests.guest.support import (
    BRIDGE_CONFIGURATION,
    JSON,
    PLAIN,
    ordinary_user,
    started_as_a_service,
    with_device,
    with_qemu,
)
from tests.guest.support import MACVTAP_MAC as MAC

TCG = ("--set", "accel=tcg")
# linux/if_tun.h
TUNSETIFF, IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x400454CA, 2, 0x1000, 0x4000


def networks(*members: str) -> tuple[str, ...]:
    """The options for a guest with these networks, which a processor that is emulated runs."""
    return (*TCG, "--set", f"networks=[{', '.join(members)}]")


def up(sevlaunch: Command, *members: str) -> int:
    """Start the plain guest with these networks, paused: the PID of its QEMU."""
    pid: int = sevlaunch("up", PLAIN, "--paused", *networks(*members), *JSON).json["pid"]
    return pid


def taps_of(pid: int) -> list[str]:
    """The interfaces that a process has open descriptors of, one for each queue."""
    found = []
    for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
        lines = dict(line.split(":", 1) for line in entry.read_text().splitlines() if ":" in line)
        if "iff" in lines:
            found.append(lines["iff"].strip())
    return found


def test_a_tap_interface_is_used(tap: str, sevlaunch: Command, system_qemu: str) -> None:
    carrier = Path(f"/sys/class/net/{tap}/carrier")
    assert carrier.read_text() == "0\n"
    pid = up(sevlaunch, f"{{type: tap, interface: {tap}}}")
    assert carrier.read_text() == "1\n"
    assert taps_of(pid) == [tap]
    sevlaunch("down", "plain", "--now")


def test_each_queue_of_a_tap_interface_is_opened(wide_tap: str, sevlaunch: Command, system_qemu: str) -> None:
    pid = up(sevlaunch, f"{{type: tap, interface: {wide_tap}, queues: 3}}")
    assert taps_of(pid) == [wide_tap] * 3
    shown = sevlaunch("qmp", "plain", "qom-get", '{"path": "/machine/peripheral/net0-device", "property": "vectors"}')
    assert shown.json == 8
    sevlaunch("down", "plain", "--now")


@pytest.mark.parametrize("version", VERSIONS)
def test_each_qemu_takes_every_key(version: str, wide_tap: str, macvtap: str, bridge: str, sevlaunch: Command) -> None:
    kinds = (
        f"{{type: tap, interface: {wide_tap}, queues: 2, mtu: 1400}}",
        f"{{type: macvtap, interface: {macvtap}, mac: '{MAC}', queues: 2, mtu: 1500}}",
        f"{{type: bridge, bridge: {bridge}, model: e1000e}}",
        "{type: user, mtu: 1280}",
    )
    options = (*networks(*kinds), *with_qemu(qemu_binary_of(version)))
    pid = sevlaunch("up", PLAIN, "--paused", *options, *JSON).json["pid"]
    # The kernel tells nothing like it of a descriptor of macvtap.
    assert len(taps_of(pid)) == 3
    sevlaunch("down", "plain", "--now")


def test_an_interface_that_does_not_fit_is_told_before_qemu_starts(
    tap: str, wide_tap: str, sevlaunch: Command, system_qemu: str
) -> None:
    refused = {
        f"{{type: tap, interface: {tap}, queues: 2}}": "was made with one queue, and the profile has queues: 2",
        f"{{type: tap, interface: {wide_tap}}}": "was made with several queues, and the profile has queues: 1",
        f"{{type: tap, interface: {tap}, mtu: 9000}}": f"ip link set {tap} mtu 9000",
        "{type: tap, interface: slnothere}": "tap interface slnothere: missing (ip tuntap add dev slnothere mode tap",
        "{type: macvtap, interface: slnothere}": "macvtap interface slnothere: missing (ip link add link INTERFACE",
        "{type: bridge, bridge: slnothere}": "bridge interface slnothere: missing (ip link add slnothere type bridge)",
        f"{{type: bridge, bridge: {tap}}}": f"bridge interface {tap}: is a tap interface",
        "{type: tap, interface: lo}": "tap interface lo: is an interface of another kind",
        "{type: tap, descriptors: [999]}": "descriptor 999: is no open tap interface",
    }
    for network, message in refused.items():
        assert message in sevlaunch("up", PLAIN, *networks(network), check=4).stderr
    assert sevlaunch.left_behind() == []


def test_a_name_that_no_interface_can_have_is_refused(sevlaunch: Command, system_qemu: str) -> None:
    result = sevlaunch("up", PLAIN, *networks("{type: tap, interface: no/such}"), check=3)
    assert "networks.0.interface" in result.stderr


def test_the_bridge_helper_makes_an_interface_and_qemu_may_start_nothing(
    bridge: str, sevlaunch: Command, system_qemu: str
) -> None:
    pid = up(sevlaunch, f"{{type: bridge, bridge: {bridge}}}", f"{{type: bridge, bridge: {bridge}}}")
    made = taps_of(pid)
    assert len(made) == 2
    for name in made:
        assert Path(f"/sys/class/net/{name}/master").resolve().name == bridge
        assert Path(f"/sys/class/net/{name}/carrier").read_text() == "1\n"
    words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    assert "spawn=deny" in words[words.index("-sandbox") + 1].split(",")
    sevlaunch("down", "plain", "--now")
    # Nothing else has them open, so they are gone with QEMU.
    wait_until(lambda: not any(find_interface(name) for name in made), what="the end of the interfaces")
    assert sevlaunch.left_behind() == []


def test_a_bridge_that_is_not_allowed_is_said_with_the_remedy(
    bridge: str, sevlaunch: Command, system_qemu: str
) -> None:
    BRIDGE_CONFIGURATION.write_text("allow another\n")
    result = sevlaunch("up", PLAIN, *networks(f"{{type: bridge, bridge: {bridge}}}"), check=4)
    assert f"a line `allow {bridge}`" in result.stderr
    assert sevlaunch.left_behind() == []


def test_an_ordinary_user_has_a_bridge_through_the_helpers_rights(bridge: str, base: Path, system_qemu: str) -> None:
    places = [Path(place) for place in BRIDGE_HELPER.fallbacks if Path(place).exists()]
    user = ordinary_user(base)
    with_device(user, "/dev/net/tun")
    programs = base / "bin"
    programs.mkdir()
    helper = programs / "qemu-bridge-helper"
    shutil.copy(places[0], helper)
    user.environment["PATH"] = f"{programs}:{user.environment['PATH']}"
    options = networks(f"{{type: bridge, bridge: {bridge}}}")
    refused = user("up", PLAIN, *options, check=4).stderr
    assert f"program {helper}: has no more rights than this user (as root: chmod u+s {helper}" in refused
    helper.chmod(stat.S_ISUID | 0o755)
    pid = user("up", PLAIN, "--paused", *options, *JSON).json["pid"]
    [name] = taps_of(pid)
    assert Path(f"/sys/class/net/{name}/master").resolve().name == bridge
    assert Path(f"/proc/{pid}").stat().st_uid == user.UID
    user("down", "plain", "--now")
    assert user.left_behind() == []


def test_a_macvtap_interface_is_opened_by_the_launcher(macvtap: str, sevlaunch: Command, system_qemu: str) -> None:
    pid = up(sevlaunch, f"{{type: macvtap, interface: {macvtap}, mac: '{MAC}', queues: 2}}")
    device = Path(f"/dev/tap{socket.if_nametoindex(macvtap)}")
    opened = [entry for entry in Path(f"/proc/{pid}/fd").iterdir() if entry.readlink() == device]
    assert len(opened) == 2
    sevlaunch("down", "plain", "--now")


def test_a_macvtap_interface_with_another_address_is_told(macvtap: str, sevlaunch: Command, system_qemu: str) -> None:
    result = sevlaunch("up", PLAIN, *networks(f"{{type: macvtap, interface: {macvtap}}}"), check=4)
    assert f"lets packets to {MAC} through, and the guest has 52:54:00:" in result.stderr
    assert f"ip link set {macvtap} address 52:54:00:" in result.stderr


def test_a_program_hands_in_an_open_interface(network_rights: None, sevlaunch: Command, system_qemu: str) -> None:
    name = f"slh{os.getpid()}"
    fd = os.open("/dev/net/tun", os.O_RDWR)
    try:
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
        assert tap_of(fd) == name
        options = networks(f"{{type: tap, descriptors: [{fd}]}}")
        pid = sevlaunch("up", PLAIN, "--paused", *options, *JSON, pass_fds=[fd]).json["pid"]
        assert taps_of(pid) == [name]
        sevlaunch("down", "plain", "--now")
    finally:
        os.close(fd)


def test_a_file_is_no_tap_interface(base: Path) -> None:
    with (base / "file").open("w") as stream:
        assert tap_of(stream.fileno()) is None
    assert tap_of(987) is None


def test_vhost_is_asked_of_the_kernel(tap: str, sevlaunch: Command, system_qemu: str) -> None:
    options = networks(f"{{type: tap, interface: {tap}, vhost: true}}")
    if Path("/dev/vhost-net").exists():
        pid = sevlaunch("up", PLAIN, "--paused", *options, *JSON).json["pid"]
        assert [entry for entry in Path(f"/proc/{pid}/fd").iterdir() if entry.readlink() == Path("/dev/vhost-net")]
        sevlaunch("down", "plain", "--now")
    else:
        assert "modprobe vhost_net" in sevlaunch("up", PLAIN, *options, check=4).stderr


def test_a_bridge_takes_the_capabilities_of_its_unit(bridge: str, sevlaunch: Command, system_qemu: str) -> None:
    started_as_a_service(sevlaunch, *networks(f"{{type: bridge, bridge: {bridge}}}"))


def test_a_macvtap_interface_takes_the_capabilities_of_its_unit(
    macvtap: str, sevlaunch: Command, system_qemu: str
) -> None:
    started_as_a_service(sevlaunch, *networks(f"{{type: macvtap, interface: {macvtap}, mac: '{MAC}'}}"))
