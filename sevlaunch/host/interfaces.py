"""Network interfaces of this machine, as its kernel tells of them."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from pathlib import Path

from msgspec import Struct

SYSFS = Path("/sys/class/net")
# linux/if_tun.h: the interface of an open tap, and the flags in sysfs of one that has several queues.
_TUNGETIFF = 0x800454D2
_IFREQ = struct.Struct("16sH22x")
_MULTI_QUEUE = 0x0100


class Interface(Struct, frozen=True):
    """An interface. ``kind``: bridge, tap, macvtap or other; ``multi_queue``: of a tap; ``mtu`` in bytes."""

    name: str
    index: int
    kind: str
    mac: str
    mtu: int
    multi_queue: bool = False


def find_interface(name: str, sysfs: Path = SYSFS) -> Interface | None:
    """The interface ``name`` of this process's network namespace, or None where there is none.

    Of one of another namespace than sysfs was mounted in, only that it is there is known: its kind is empty.
    """
    try:
        index = socket.if_nametoindex(name)
    except OSError:
        return None
    folder = sysfs / name
    if _read(folder / "ifindex") != str(index):
        return Interface(name, index, "", "", 0)
    flags = _read(folder / "tun_flags")
    kind = "tap" if flags else next((kind for kind in ("bridge", "macvtap") if (folder / kind).is_dir()), "other")
    return Interface(
        name,
        index,
        kind,
        _read(folder / "address"),
        int(_read(folder / "mtu") or 0),
        bool(flags) and bool(int(flags, 16) & _MULTI_QUEUE),
    )


def tap_of(descriptor: int) -> str | None:
    """The name of the tap or macvtap interface that a file descriptor is open on; None where it is on nothing like it.

    Source: TUNGETIFF of Linux' drivers/net/tun.c and tap.c.
    """
    request = bytearray(_IFREQ.size)
    try:
        fcntl.ioctl(descriptor, _TUNGETIFF, request)
    except OSError:
        return None
    name: bytes = _IFREQ.unpack(request)[0]
    return os.fsdecode(name.rstrip(b"\0"))


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
