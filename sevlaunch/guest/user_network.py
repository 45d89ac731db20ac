"""What QEMU's user-mode network knows of connections to forwarded ports: the monitor's `info usernet`."""

from __future__ import annotations

import re

# libslirp's slirp_connection_info(): protocol and state, descriptor, source and its port, destination and its port. The
# source of a connection through a forwarded port is that port on the host.
_CONNECTION = re.compile(r"^\s*TCP\[(\w+)\]\s+-?\d+\s+\S+\s+(\d+)\s", re.MULTILINE)
_FORWARDED = "HOST_FORWARD"
_ESTABLISHED = "ESTABLISHED"


def accepts(text: str, port: int) -> bool | None:
    """Whether the guest has accepted a connection to a port of the host; None: no user-mode network forwards the port.

    The network itself accepts every connection, whether somebody listens in the guest or not.

    :param text: the answer to `info usernet`.
    """
    states = {state for state, found in _CONNECTION.findall(text) if int(found) == port}
    return _ESTABLISHED in states if _FORWARDED in states else None
