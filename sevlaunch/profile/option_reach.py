"""What QEMU's options in ``qemu.extra_args`` make QEMU do outside the guest's own folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sevlaunch.profile.extra_args import options_of
from sevlaunch.profile.option_values import is_on, parse_value

RUNS, READS, WRITES, OPENS, LISTENS, CONNECTS = "runs", "reads", "writes", "opens", "listens", "connects"

# Options whose whole value is a file, a program or an address; of a flag, what it does by itself.
SIMPLE = {
    "D": WRITES,
    "L": READS,
    "cdrom": WRITES,
    "dtb": READS,
    "fda": WRITES,
    "fdb": WRITES,
    "hda": WRITES,
    "hdb": WRITES,
    "hdc": WRITES,
    "hdd": WRITES,
    "iscsi": CONNECTS,
    "jitdump": WRITES,
    "k": READS,
    "option-rom": READS,
    "perfmap": WRITES,
    "qtest-log": WRITES,
    "s": LISTENS,
    "set": OPENS,
    "shim": READS,
    "spice": LISTENS,
    "usbdevice": OPENS,
    "vnc": LISTENS,
}
_FLAGS = {
    "jitdump": "jit-PID.dump in the current folder",
    "perfmap": "/tmp/perf-PID.map",
    "s": "tcp::1234, for a debugger",
}
# Options with a character device as QEMU's older spelling has it: unix:PATH, tcp:HOST:PORT, file:PATH.
CHARACTER_DEVICES = ("debugcon", "gdb", "parallel", "qtest", "serial")
_OWN = ("null", "none", "vc", "chardev", "stdio", "msmouse", "ringbuf", "braille")
# Options with properties; those that say a file or an address, and what is done with it.
PROPERTIES: dict[str, dict[str, str]] = {
    "acpitable": {"file": READS, "data": READS},
    "audio": {"path": WRITES, "server": CONNECTS, "in.dev": OPENS, "out.dev": OPENS},
    "audiodev": {"path": WRITES, "server": CONNECTS, "in.dev": OPENS, "out.dev": OPENS},
    "blockdev": {},
    "boot": {"splash": READS},
    "chardev": {"input-path": READS, "logfile": WRITES},
    "device": {
        "bootrom": READS,
        "file": READS,
        "host": OPENS,
        "hostdevice": OPENS,
        "kernel": READS,
        "initrd": READS,
        "romfile": READS,
        "serial_device": OPENS,
        "socket": CONNECTS,
        "sysfsdev": OPENS,
        "vhostdev": OPENS,
    },
    "display": {"rendernode": OPENS, "vnc": LISTENS, "addr": CONNECTS},
    "drive": {},
    "fsdev": {"path": WRITES, "socket": CONNECTS},
    "fw_cfg": {"file": READS},
    "global": {},
    "net": {},
    "netdev": {},
    "nic": {},
    "object": {
        "dir": READS,
        "evdev": OPENS,
        "file": READS,
        "filename": READS,
        "if": OPENS,
        "mem-path": WRITES,
        "passwordfile": READS,
        "path": OPENS,
        "server": CONNECTS,
        "shm": OPENS,
    },
    "plugin": {"": RUNS, "file": RUNS},
    "smbios": {"file": READS, "path": READS},
    "tpmdev": {"path": OPENS, "cancel-path": WRITES},
    "trace": {"file": WRITES, "events": READS},
    "virtfs": {"path": WRITES, "socket": CONNECTS},
}
# Options that stay within QEMU, whatever their value.
HARMLESS = {
    *("action", "async-teardown", "compat", "d", "dfilter", "echr", "enable-sync-profile", "full-screen", "icount"),
    *("loadvm", "msg", "no-acpi", "no-fd-bootchk", "no-hpet", "no-shutdown", "no-user-config", "nodefaults"),
    *("nographic", "only-migratable", "portrait", "rotate", "rtc", "seed", "singlestep", "usb", "vga"),
    *("watchdog-action", "win2k-hack"),
}
_LOCAL_DRIVERS = ("null-co", "null-aio", "copy-on-read", "blkdebug", "throttle")


class OptionReach(NamedTuple):
    """``does``: one of the words above; ``what``: the file, program or address; ``position`` of the argument."""

    position: int
    does: str
    what: str


def reach_of_options(args: Sequence[str]) -> Iterator[OptionReach]:
    """What the arguments reach, in their order."""
    for position, name, value in options_of(args):
        place = position if value is None or not name else position + 1
        for does, what in _reach(name, value or ""):
            yield OptionReach(place, does, what)


def _reach(name: str, value: str) -> Iterator[tuple[str, str]]:
    properties = parse_value(value, implied_key=name != "drive")
    if not name:
        yield WRITES, value
    elif name in SIMPLE:
        if value != "none":
            yield SIMPLE[name], value or _FLAGS[name]
    elif name in CHARACTER_DEVICES:
        yield from _character_device(value)
    elif name in PROPERTIES:
        for key, does in PROPERTIES[name].items():
            if properties.get(key):
                yield does, properties[key]
        if name in ("drive", "blockdev"):
            yield from _image(properties)
        elif name == "chardev":
            yield from _chardev(properties)
        elif name in ("netdev", "nic", "net"):
            yield from _network(properties)
        elif name == "global" and "romfile" in value:
            yield READS, value


def _image(properties: dict[str, str]) -> Iterator[tuple[str, str]]:
    files = [properties[key] for key in ("file", "filename", "file.filename") if properties.get(key)]
    read_only = is_on(properties.get("readonly")) or is_on(properties.get("read-only"))
    for file in files:
        yield READS if read_only else WRITES, file
    driver = properties.get("driver", properties.get("", ""))
    if not files and driver not in (*_LOCAL_DRIVERS, ""):
        # A server, or a file in a nested description.
        yield CONNECTS, ",".join(f"{key}={text}" if key else text for key, text in properties.items())


def _chardev(properties: dict[str, str]) -> Iterator[tuple[str, str]]:
    kind = properties.get("backend") or properties.get("", "")
    if kind == "socket":
        address = properties.get("path") or f"{properties.get('host', '')}:{properties.get('port', '')}"
        yield LISTENS if is_on(properties.get("server")) else CONNECTS, address
    elif kind == "udp":
        yield CONNECTS, f"{properties.get('host', '')}:{properties.get('port', '')} (UDP)"
    elif kind == "file":
        yield WRITES, properties.get("path", "")
    elif kind not in (*_OWN, "pty", "spicevmc", "spiceport", "dbus"):
        yield OPENS, properties.get("path", kind)


def _character_device(value: str) -> Iterator[tuple[str, str]]:
    kind, _, rest = value.partition(":")
    if kind in ("tcp", "telnet", "websocket", "unix"):
        # With "server" among the words behind the address, it waits for others.
        yield LISTENS if "server" in rest or kind == "telnet" else CONNECTS, value
    elif kind == "udp":
        yield CONNECTS, value
    elif kind == "file":
        yield WRITES, rest
    elif kind not in (*_OWN, "pty"):
        yield OPENS, rest if kind == "pipe" else value


def _network(properties: dict[str, str]) -> Iterator[tuple[str, str]]:
    kind = properties.get("type") or properties.get("", "")
    if kind == "user":
        yield from _user_network(properties)
    elif kind in ("tap", "bridge", "macvtap"):
        yield OPENS, properties.get("ifname") or properties.get("br") or "a tap interface"
    elif kind in ("socket", "stream", "dgram"):
        listening = "listen" in properties or is_on(properties.get("server"))
        yield (
            LISTENS if listening else CONNECTS,
            ",".join(f"{key}={text}" for key, text in properties.items() if key not in ("", "id", "type")),
        )
    elif kind not in ("none", "nic", "hubport", "help"):
        yield CONNECTS, f"a network of type {kind}"


def _user_network(properties: dict[str, str]) -> Iterator[tuple[str, str]]:
    if not is_on(properties.get("restrict")):
        yield CONNECTS, "wherever the guest wants to, as this user"
    for key, does in (("hostfwd", LISTENS), ("guestfwd", CONNECTS), ("tftp", READS)):
        if key in properties:
            yield does, properties[key]
