"""Ports of the host that lead into a guest. Apart from the evidence, which a start does not wait for."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from sevlaunch.documents import matching

# A port that is bound here is bound on every address of the host.
EVERY_ADDRESS = "0.0.0.0"
_Address = Annotated[str, Meta(max_length=4096)]
_Port = Annotated[int, Meta(ge=1, lt=1 << 16)]


class SshAddress(Struct, frozen=True):
    """Where the guest's SSH server is reached from the host."""

    host: _Address
    port: _Port
    user: Annotated[str, Meta(max_length=4096)] | None


class ForwardInfo(Struct, frozen=True):
    """A port of the host that leads into the guest; in a plan, ``port`` 0 is a free one, which QEMU takes."""

    protocol: Annotated[str, matching("tcp|udp")]
    host: _Address
    port: _Port
    guest_port: _Port
