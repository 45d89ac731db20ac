"""What a program that embeds sevlaunch brings along for the start of a guest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from sevlaunch.guest.handed import Opened
from sevlaunch.guest.process import Process, spawn
from sevlaunch.host.accounts import Account


class Spawner(Protocol):
    """What starts QEMU: :func:`sevlaunch.guest.process.spawn`, or an embedder's own, such as one that uses a cgroup."""

    def __call__(
        self,
        argv: Sequence[str],
        *,
        log: int,
        inherit: Sequence[int],
        lock_bytes: int,
        environment: Mapping[str, str] | None,
        cgroup: Path | None,
        account: Account | None,
    ) -> Process:
        """Start ``argv`` with its output in the file descriptor ``log``, and those of ``inherit``; see the default."""


class Embedding(Struct, frozen=True):
    """What an embedder brings along.

    ``extra_args`` go to QEMU as they are; ``inherit`` are file descriptors that it keeps. ``disks``: keeps those that
    have no name for the next start; None: they are gone with QEMU.
    """

    spawn: Spawner = spawn
    extra_args: tuple[str, ...] = ()
    inherit: tuple[int, ...] = ()
    disks: Opened | None = None
