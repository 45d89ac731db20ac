"""What QEMU's user-mode network knows of forwarded ports and the connections through them: `info usernet`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from sevlaunch.errors import UNEXPECTED_ANSWER, QmpError
from sevlaunch.ports import EVERY_ADDRESS, ForwardInfo

# QEMU's net/slirp.c, hmp_info_usernet(): the network that the lines after it are of.
_NETWORK = r"^\S+ -?\d+ \((\S+)\):"
# libslirp's slirp_connection_info(): protocol and state, descriptor, source and its port, destination and its port. The
# source of a connection through a forwarded port is that port on the host.
_CONNECTION = r"^\s*(TCP|UDP)\[(\w+)\]\s+-?\d+\s+(\S+)\s+(\d+)\s+\S+\s+(\d+)\s"
_FORWARDED = "HOST_FORWARD"
_ESTABLISHED = "ESTABLISHED"


class _Connection(NamedTuple):
    network: str
    state: str
    forward: ForwardInfo


def accepts(text: str, port: int) -> bool | None:
    """Whether the guest has accepted a connection to a port of the host; None: no user-mode network forwards the port.

    The network itself accepts every connection, whether somebody listens in the guest or not.

    :param text: the answer to `info usernet`.
    """
    found = [one for one in _connections(text) if (one.forward.protocol, one.forward.port) == ("tcp", port)]
    states = {one.state for one in found}
    return _ESTABLISHED in states if _FORWARDED in states else None


def with_bound_ports(text: str, network: str, wanted: Sequence[ForwardInfo]) -> list[ForwardInfo]:
    """The forwards of a network; each that asks for a free port with one that QEMU has bound for it.

    :param text: the answer to `info usernet`.
    :param network: QEMU's name of the network.
    :raise QmpError: when QEMU does not tell the port.
    """
    named = {forward.port for forward in wanted}
    free = [
        one.forward
        for one in _connections(text)
        if one.network == network and one.state == _FORWARDED and one.forward.port not in named
    ]
    return [forward if forward.port else _taken(free, forward) for forward in wanted]


def _taken(free: list[ForwardInfo], wanted: ForwardInfo) -> ForwardInfo:
    for one in free:
        if replace(one, port=0) == wanted:
            # Two that want the same of the guest get a port each.
            free.remove(one)
            return one
    raise QmpError(
        f"QEMU does not tell which {wanted.protocol} port of {wanted.host} leads to port {wanted.guest_port} of the "
        "guest",
        error_class=UNEXPECTED_ANSWER,
        hint="name a port in the profile instead of a free one",
    )


def _connections(text: str) -> Iterator[_Connection]:
    network = ""
    for line in text.splitlines():
        if heading := re.match(_NETWORK, line):
            network = heading[1]
        elif found := re.match(_CONNECTION, line):
            protocol, state, address, port, guest_port = found.groups()
            host = EVERY_ADDRESS if address == "*" else address
            yield _Connection(network, state, ForwardInfo(protocol.lower(), host, int(port), int(guest_port)))
