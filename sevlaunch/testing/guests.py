"""The guests of a test session: their names, their folders, their end, and what they said."""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import json
import os
import shlex
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
from msgspec import Struct

from sevlaunch import sync
from sevlaunch.api import Host, Plan, Profile, SevlaunchError, plan, render
from sevlaunch.doctor.requirements import missing, missing_for_rehearsal
from sevlaunch.flows.take_down import take_down
from sevlaunch.guest.folder import EVIDENCE, QEMU_LOG, guests, prepare_root
from sevlaunch.guest_type import GuestType
from sevlaunch.host.folders import runtime_folder
from sevlaunch.plan.places import CONSOLE_LOG

_LOCK = "session.lock"
# How much of a console or log a report shows, in bytes.
_SHOWN = 16 << 10


def why_not(guest_type: GuestType) -> str:
    """Why this host can't run guests of a type with KVM; empty when it can."""
    return "; ".join(problem.message for problem in missing(guest_type, "kvm", Host.probe()))


class Session:
    """A test session: a folder for its guests, and the end of those that dead sessions left."""

    def __init__(self) -> None:
        all_sessions = runtime_folder().with_name("sevlaunch-tests")
        prepare_root(all_sessions)
        self.root = all_sessions / str(os.getpid())
        self.numbers = itertools.count(1)
        # The workers of one run begin at the same time.
        with (all_sessions / ".lock").open("w") as gate:
            fcntl.flock(gate, fcntl.LOCK_EX)
            for folder in all_sessions.iterdir():
                if folder.is_dir():
                    _clear_if_dead(folder)
            prepare_root(self.root)
            self._lock = (self.root / _LOCK).open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.close()
        (self.root / _LOCK).unlink(missing_ok=True)
        # What could not be removed is for the next session to find.
        if not any(self.root.iterdir()):
            self.root.rmdir()


def _clear_if_dead(folder: Path) -> None:
    """Take down the guests of a session that is no more."""
    with (folder / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        for guest in guests(folder):
            asyncio.run(take_down(guest.name, root=folder, now=True))
        (folder / _LOCK).unlink()
        folder.rmdir()


class _Started(Struct, frozen=True):
    plan: Plan
    guest: sync.Guest


class GuestFactory:
    """Starts the guests of one test. Made by the fixture ``sev_guest``."""

    def __init__(self, session: Session, folder: Path, binary: str | None) -> None:
        self._session = session
        self._folder = folder
        self._binary = binary
        self._stack = ExitStack()
        self._started: list[_Started] = []

    def __enter__(self) -> GuestFactory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def __call__(
        self,
        profile: str | Path | Mapping[str, Any],
        *overrides: str,
        paused: bool = False,
        limit: float | None = None,
        rehearse: bool | None = None,
    ) -> sync.Guest:
        """Start a guest; it ends with the test.

        :param profile: a file, relative to the test's folder, or plain data.
        :param overrides: ``PATH=VALUE`` texts, as for ``--set``.
        :param paused: leave it before its first instruction.
        :param limit: seconds for the start.
        :param rehearse: default: where the host can't really run the guest; where it can do neither, the test is
            skipped.
        """
        made = self._plan(profile, overrides, rehearse)
        guest = self._stack.enter_context(sync.launch(made, paused=paused, limit=limit))
        self._started.append(_Started(made, guest))
        return guest

    def sections(self) -> list[tuple[str, str]]:
        """What the guests said, for the report of a failed test."""
        found = []
        for one in self._started:
            folder = one.plan.folder
            evidence = folder / EVIDENCE
            texts = {
                "console": _end_of(folder / CONSOLE_LOG),
                "QEMU's output": _end_of(folder / QEMU_LOG),
                "command line": shlex.join(render(one.plan)),
                "evidence": _end_of(evidence) if evidence.exists() else "",
            }
            found += [(f"{what} of guest {one.plan.name}", text) for what, text in texts.items() if text]
        return found

    def _plan(self, source: str | Path | Mapping[str, Any], overrides: tuple[str, ...], rehearse: bool | None) -> Plan:
        if self._binary:
            overrides = (f"qemu.binary={json.dumps(self._binary)}", *overrides)
        name = f"test-{next(self._session.numbers)}"
        if isinstance(source, Mapping):
            profile = Profile.from_dict(source, base=self._folder, overrides=overrides, name=name)
        else:
            profile = Profile.load(self._folder / source, overrides=overrides, name=name)
        host = Host.probe(profile.profile.qemu.binary, runtime=self._session.root, images=profile.profile.images)
        guest_type = profile.profile.security.guest_type
        if rehearse is None:
            rehearse = guest_type.encrypted and bool(missing(guest_type, "kvm", host))
        if rehearse:
            _check_rehearsal(host)
        return plan(profile, host, rehearse=rehearse)


def _check_rehearsal(host: Host) -> None:
    from sevlaunch.rehearsal.available import check_available

    reasons = [problem.message for problem in missing_for_rehearsal(host)]
    try:
        check_available(traced=False, snp=False)
    except SevlaunchError as error:
        reasons.append(error.message)
    if reasons:
        pytest.skip(f"neither SEV nor a rehearsal: {'; '.join(reasons)}")


def _end_of(file: Path) -> str:
    try:
        return file.read_bytes()[-_SHOWN:].decode("utf-8", "replace")
    except OSError as error:
        return f"({file}: {error.strerror})"
