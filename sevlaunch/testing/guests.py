"""The guests of a test session: their names, their folders, their end, and what they said."""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import json
import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
from msgspec import Struct

from sevlaunch import sync
from sevlaunch.api import (
    GuestNotFound,
    Host,
    HostError,
    Plan,
    Profile,
    SevlaunchError,
    complete_plan,
    plan,
    render,
)
from sevlaunch.doctor.requirements import missing, missing_for_rehearsal
from sevlaunch.flows.images import fetch_missing
from sevlaunch.flows.take_down import take_down
from sevlaunch.guest.console_log import log_end
from sevlaunch.guest.folder import EVIDENCE, QEMU_LOG, GuestFolder, guests
from sevlaunch.guest.readiness import READY_LIMIT, parse_condition
from sevlaunch.guest.runtime import open_root, prepare_root
from sevlaunch.guest.safe_files import OpenFolder
from sevlaunch.guest_type import GuestType
from sevlaunch.host.folders import runtime_folder, state_folder

_LOCK = "session.lock"
# How much of a console or log a report shows, in bytes.
_SHOWN = 16 << 10


def why_not(guest_type: GuestType) -> str:
    """Why this host can't run guests of a type with KVM; empty when it can."""
    return "; ".join(problem.message for problem in missing(guest_type, "kvm", Host.probe()))


class Session:
    """A test session: folders for its guests, and the end of those that dead sessions left.

    What outlives a guest elsewhere ends with the session here, and is shared with no other worker of the same run.
    """

    def __init__(self) -> None:
        of_commands = runtime_folder()
        all_sessions = of_commands.with_name(f"{of_commands.name}-tests")
        prepare_root(all_sessions)
        self.root = all_sessions / str(os.getpid())
        self.state = _state_of(self.root)
        self.numbers = itertools.count(1)
        # The workers of one run begin at the same time.
        with open_root(all_sessions) as opened, _flocked(opened, ".lock"):
            for name in opened.names():
                _clear_if_dead(all_sessions / name)
            prepare_root(self.root)
            with open_root(self.root) as own:
                self._lock = ExitStack()
                self._lock.enter_context(_flocked(own, _LOCK))

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.close()
        _remove_session(self.root)


def _state_of(root: Path) -> Path:
    """Where what outlives a session's guests is; ``root`` is where they run."""
    of_commands = state_folder()
    return of_commands.with_name(f"{of_commands.name}-tests") / root.name


def _clear_if_dead(root: Path) -> None:
    """Take down the guests of a session that is no more."""
    try:
        session = open_root(root)
    except HostError:
        # No session's folder.
        return
    try:
        with session, _flocked(session, _LOCK, fcntl.LOCK_NB):
            for guest in guests(root):
                asyncio.run(take_down(guest.name, root=root, now=True))
    except BlockingIOError:
        return
    _remove_session(root)


def _remove_session(root: Path) -> None:
    """Remove a session's folder; what could not be removed from it is for the next session to find."""
    with suppress(FileNotFoundError):
        shutil.rmtree(_state_of(root))
    with open_root(root) as session:
        with suppress(FileNotFoundError):
            os.unlink(_LOCK, dir_fd=session.fd)
        if session.names():
            return
    root.rmdir()


@contextmanager
def _flocked(folder: OpenFolder, name: str, flags: int = 0) -> Iterator[None]:
    """Hold a lock file in a folder; with ``fcntl.LOCK_NB``, BlockingIOError where another process does."""
    fd = folder.open_file(name, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | flags)
        yield
    finally:
        os.close(fd)


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
        wait: Sequence[str] = (),
        wait_limit: float = READY_LIMIT,
    ) -> sync.Guest:
        """Start a guest; it ends with the test.

        :param profile: a file, relative to the test's folder, or plain data.
        :param overrides: ``PATH=VALUE`` texts, as for ``--set``.
        :param paused: leave it before its first instruction.
        :param limit: seconds for the start.
        :param rehearse: default: where the host can't really run the guest; where it can do neither, the test is
            skipped.
        :param wait: conditions that it has to reach, as for ``--wait``, such as ``ssh``.
        :param wait_limit: seconds for each.
        """
        conditions = [parse_condition(text) for text in wait]
        made = self._plan(profile, overrides, rehearse)
        guest = self._stack.enter_context(sync.launch(made, paused=paused, limit=limit))
        self._started.append(_Started(made, guest))
        for condition in conditions:
            guest.wait_until_ready(condition, limit=wait_limit)
        return guest

    def sections(self) -> list[tuple[str, str]]:
        """What the guests said, for the report of a failed test."""
        found = []
        for one in self._started:
            folder = GuestFolder(one.plan.folder.parent, one.plan.name)
            texts = {
                "console": log_end(folder, _SHOWN).decode("utf-8", "replace"),
                "QEMU's output": _end_of(folder.opened, QEMU_LOG),
                "command line": shlex.join(render(one.plan)),
                "evidence": _end_of(folder.opened, EVIDENCE),
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
        session, wanted = self._session, profile.profile
        fetch_missing([profile])
        host = Host.probe(
            wanted.qemu.binary,
            runtime=session.root,
            state=session.state,
            images=wanted.images,
            helpers=wanted.helpers,
            firmware=wanted.firmware.files,
            kernel=wanted.boot.kernel,
            boot_image=wanted.boot_image,
            io_uring=wanted.uses_io_uring,
        )
        guest_type = profile.profile.security.guest_type
        if rehearse is None:
            rehearse = guest_type.encrypted and bool(missing(guest_type, "kvm", host))
        if rehearse:
            _check_rehearsal(host)
        return complete_plan(profile, plan(profile, host, rehearse=rehearse), host)


def _check_rehearsal(host: Host) -> None:
    from sevlaunch.rehearsal.available import check_available

    reasons = [problem.message for problem in missing_for_rehearsal(host)]
    try:
        check_available(traced=False, snp=False)
    except SevlaunchError as error:
        reasons.append(error.message)
    if reasons:
        pytest.skip(f"neither SEV nor a rehearsal: {'; '.join(reasons)}")


def _end_of(place: Callable[[], AbstractContextManager[OpenFolder]], name: str) -> str:
    try:
        with place() as folder:
            return folder.read_end(name, _SHOWN).decode("utf-8", "replace")
    except (FileNotFoundError, GuestNotFound):
        # It has not come that far.
        return ""
