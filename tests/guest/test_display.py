"""The screen, and channels: what QEMU gets, what is refused, and that a real one listens where it is said."""

from __future__ import annotations

import socket
import stat
from contextlib import suppress
from pathlib import Path

import pytest

from sevlaunch.errors import ProfileError
from sevlaunch.host.model import Host
from sevlaunch.plan.command_line import argv
from sevlaunch.plan.resolve import resolve
from sevlaunch.profile.loader import loads
from tests.conftest import HOSTS, VERSIONS, Command, qemu_binary_of, wait_until
from tests.guest.support import JSON, PLAIN, with_qemu


def arguments(text: str) -> list[str]:
    """The arguments of a guest whose folder is /r/g, on a recorded host."""
    host = Host.load(HOSTS / "milan-qemu-10.0.json")
    plan = resolve(loads(f"{{name: g, {text[1:]}\n"), host)
    return [argument.replace(str(plan.qemu_folder), "FOLDER") for argument in argv(plan)]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("{video: std, display: vnc}", ["-vnc", "unix:FOLDER/vnc.sock"]),
        ("{video: std, display: {type: vnc, address: 127.0.0.1}}", ["-vnc", "127.0.0.1:0"]),
        ("{video: std, display: {type: vnc, address: '::1', port: 5907}}", ["-vnc", "[::1]:7"]),
        ("{video: qxl, display: spice}", ["-spice", "unix=on,addr=FOLDER/spice.sock,disable-ticketing=on"]),
        (
            "{video: qxl, display: {type: spice, address: 127.0.0.1, port: 5930}}",
            ["-spice", "addr=127.0.0.1,port=5930,disable-ticketing=on"],
        ),
        ("{video: std, display: vnc}", ["-device", "usb-tablet,bus=usb.0"]),
        (
            "{channels: [{name: a.b}]}",
            ["-chardev", "socket,id=port0,path=FOLDER/port0.sock,server=on,wait=off"],
        ),
        ("{channels: [{name: a.b}]}", ["-device", "virtserialport,bus=agent-bus.0,chardev=port0,name=a.b"]),
        (
            "{video: qxl, display: spice, channels: [{name: com.redhat.spice.0}]}",
            ["-chardev", "spicevmc,id=port0,name=vdagent"],
        ),
    ],
)
def test_what_qemu_gets(text: str, wanted: list[str]) -> None:
    found = arguments(text)
    assert any(found[index : index + len(wanted)] == wanted for index in range(len(found))), found


def test_what_is_not_asked_for_is_not_there() -> None:
    assert not {"-vnc", "-spice"} & set(arguments("{video: std}"))
    assert "usb" not in " ".join(arguments("{video: std, display: {type: vnc, tablet: false}}"))
    # The agent and the channels share one controller.
    both = arguments("{guest_agent: true, channels: [{name: a}, {name: b}]}")
    assert sum(argument.startswith("virtio-serial-pci") for argument in both) == 1


REFUSED = {
    "a display without a screen": ("{display: vnc}", "display", "set video, such as video: std"),
    "a port of no address": ("{video: std, display: {type: vnc, port: 5901}}", "display.port", "there is none"),
    "a name as address": (
        "{video: std, display: {type: vnc, address: localhost}}",
        "display.address",
        "wanted an IP address",
    ),
    "outputs that std has not": ("{video: {type: std, heads: 4}}", "video.heads", "for qxl and virtio video"),
    "outputs of nothing": ("{video: {type: none, heads: 2}}", "video.heads", "found type none"),
    "two channels of a name": ("{channels: [{name: a}, {name: a}]}", "channels.1.name", "two channels have the name"),
    "the agent's channel": ("{channels: [{name: org.qemu.guest_agent.0}]}", "channels.0.name", "guest_agent: true"),
    "SPICE's channel": (
        "{video: std, display: vnc, channels: [{name: com.redhat.spice.0}]}",
        "channels.0.name",
        "use display: spice",
    ),
    "too many": (f"{{channels: [{', '.join(f'{{name: c{index}}}' for index in range(30))}]}}", "channels.29", "29"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_can_not_be_is_refused(name: str) -> None:
    text, path, message = REFUSED[name]
    with pytest.raises(ProfileError) as caught:
        loads(f"{text}\n")
    assert [(problem.path, message in problem.message) for problem in caught.value.problems] == [(path, True)]


def test_an_address_is_told_to_be_open_to_all_who_reach_it() -> None:
    [warning] = loads("{video: std, display: {type: vnc, address: 0.0.0.0}}\n").warnings
    assert "whoever reaches 0.0.0.0 sees the guest's screen" in str(warning)
    assert loads("{video: std, display: vnc}\n").warnings == ()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", ["vnc", "spice"])
def test_a_display_and_channels_are_sockets_of_the_users_own(version: str, kind: str, sevlaunch: Command) -> None:
    spice = ", {name: com.redhat.spice.0}" if kind == "spice" else ""
    options = ("--set", f"display={kind}", "--set", "video={type: virtio, heads: 2}", "--set", "accel=tcg")
    channels = ("--set", f"channels=[{{name: org.example.a}}{spice}, {{name: org.example.b}}]")
    sevlaunch("up", PLAIN, "--paused", *options, *channels, *with_qemu(qemu_binary_of(version)), *JSON)
    folder = sevlaunch.runtime / "plain/qemu"
    ports = ["port0.sock", "port2.sock" if spice else "port1.sock"]
    for name in (f"{kind}.sock", *ports):
        path = folder / name
        assert stat.S_ISSOCK(path.stat().st_mode), path
        assert path.stat().st_mode & 0o077 == 0
        assert greeting(path, kind) == (b"RFB 003." if name == "vnc.sock" else b"")
    sevlaunch("down", "plain", "--now")
    assert sevlaunch.left_behind() == []


def greeting(path: Path, kind: str) -> bytes:
    """What a server says first: that of VNC its version (RFC 6143, 7.1.1), others nothing."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(30)
        client.connect(str(path))
        return client.recv(8) if kind == "vnc" and path.name == "vnc.sock" else b""


def free_port() -> int:
    """A port that nobody has, among those of VNC."""
    for port in range(5900, 65536):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    pytest.fail("every port is taken")


def test_a_display_on_an_address_listens_there(sevlaunch: Command, system_qemu: str) -> None:
    port = free_port()
    display = f"display={{type: vnc, address: 127.0.0.1, port: {port}}}"
    sevlaunch("up", PLAIN, "--paused", "--set", "video=std", "--set", "accel=tcg", "--set", display)

    def answer() -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
            return client.recv(8)

    assert wait_until(answer) == b"RFB 003."
    sevlaunch("down", "plain", "--now")
