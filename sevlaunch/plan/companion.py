"""A process that runs beside QEMU for one of its devices."""

from __future__ import annotations

from msgspec import Struct


class Companion(Struct, frozen=True):
    """Started before QEMU; QEMU connects to ``socket`` once it is there. ``remedy`` is for when the program is missing.

    ``fallbacks`` are further places of the program, outside PATH.
    """

    name: str
    argv: tuple[str, ...]
    socket: str
    remedy: str
    fallbacks: tuple[str, ...] = ()
