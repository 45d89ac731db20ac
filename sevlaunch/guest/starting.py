"""The start of one guest, step by step, and how it is undone."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import sys
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from msgspec import Struct

from sevlaunch.errors import HostError, QemuError, QmpError
from sevlaunch.guest import folder as folders
from sevlaunch.guest.cgroup import make_cgroup
from sevlaunch.guest.diagnosis import hint_for
from sevlaunch.guest.folder import GuestFolder, Record
from sevlaunch.guest.process import DEATH_LIMIT, Process, find_program, spawn, tail
from sevlaunch.host.accounts import PASS, READ, WRITE, Account, find_account, grant
from sevlaunch.plan import Plan, argv, monitor_on
from sevlaunch.plan.formats import choices
from sevlaunch.plan.option import rule

if TYPE_CHECKING:
    from sevlaunch.guest.evidence import Evidence
    from sevlaunch.guest.live import LaunchedGuest

T = TypeVar("T")

COMPANION_LIMIT = 10.0


class Spawner(Protocol):
    """What starts QEMU: :func:`sevlaunch.guest.process.spawn`, or an embedder's own, such as one that uses a cgroup."""

    def __call__(
        self,
        argv: Sequence[str],
        *,
        log: Path,
        inherit: Sequence[int],
        lock_bytes: int,
        environment: Mapping[str, str] | None,
        cgroup: Path | None,
        account: Account | None,
    ) -> Process:
        """Start ``argv`` with its output in ``log`` and the file descriptors of ``inherit``; see the default."""


class Embedding(Struct, frozen=True):
    """What an embedder brings along.

    ``extra_args`` go to QEMU as they are; ``inherit`` are file descriptors that it keeps.
    """

    spawn: Spawner = spawn
    extra_args: tuple[str, ...] = ()
    inherit: tuple[int, ...] = ()


class Start:
    """The start of one guest, and the end of what was started, unless it is let go.

    :param launcher: what is held until the launch is over.
    :param lock: the guest's lock, for QEMU to inherit.
    """

    def __init__(self, plan: Plan, folder: GuestFolder, launcher: ExitStack, lock: int, embedding: Embedding) -> None:
        self.plan = plan
        self.folder = folder
        self._launcher = launcher
        self._lock = lock
        self._embedding = embedding
        self._account = find_account(plan.run_as.value) if plan.run_as else None
        self._detached = False
        self._companions: list[Process] = []
        self._process: Process | None = None
        self._guest: LaunchedGuest | None = None

    @property
    def process(self) -> Process:
        """QEMU's process."""
        return _started(self._process)

    @property
    def guest(self) -> LaunchedGuest:
        """The guest, once QEMU answers."""
        return _started(self._guest)

    async def begin(self, connection: AsyncExitStack) -> None:
        """Start QEMU, paused, and read what the launch shows. ``connection`` gets what is to be closed in the end."""
        self._prepare_files()
        for companion in self.plan.companions:
            program = find_program(companion.argv[0], companion.fallbacks, companion.remedy)
            log = self.folder.file(f"{companion.name}.log")
            process = spawn([program, *companion.argv[1:]], log=log, account=self._account)
            self._companions.append(process)
            await _socket_appears(companion.socket, process, log)
        ours, theirs = socket.socketpair()
        with theirs:
            connection.callback(ours.close)
            # A monitor of the launcher's own: connected before QEMU runs, so there is nothing to wait for, and the
            # other commands' monitor stays free.
            monitor = monitor_on("launcher", self.plan.monitor_object, rule("the launcher's own"))
            channel = ["-chardev", f"socket,id=launcher,fd={theirs.fileno()}", *monitor.argv]
            command = [*argv(self.plan), *channel, *self._embedding.extra_args]
            inherit = [self._lock, theirs.fileno(), *self._embedding.inherit]
            if self.plan.rehearsal:
                await self._rehearse(command, inherit)
            else:
                self._process = self._spawn(command, inherit)
        record = self._make_record()
        self.folder.write_record(record)
        # Imported while QEMU starts: asyncio's streams and qemu.qmp take as long as QEMU itself.
        from sevlaunch.guest.evidence import check_encryption, gather, sha256_of
        from sevlaunch.guest.live import LaunchedGuest
        from sevlaunch.guest.qmp import session

        firmware_sha256 = sha256_of(self.plan.firmware.code.value)
        qmp = await self._while_alive(connection.enter_async_context(session(ours, limit=float("inf"))))
        evidence = await self._while_alive(gather(qmp, record, firmware_sha256=firmware_sha256))
        check_encryption(evidence, self.plan.security.policy.value if self.plan.security else None)
        self._guest = LaunchedGuest(self.folder, record, self.process, qmp, evidence, self)
        self._write_evidence(evidence)

    def _spawn(self, command: list[str], inherit: list[int]) -> Process:
        memory = self.plan.memory
        return self._embedding.spawn(
            [*(memory.limit.scope if memory.limit else ()), *command],
            log=self.folder.file(folders.QEMU_LOG),
            inherit=inherit,
            lock_bytes=memory.lock_bytes,
            environment=memory.environment,
            cgroup=make_cgroup(self.folder, memory.limit) if memory.limit and memory.limit.parent else None,
            account=self._account,
        )

    async def _rehearse(self, command: list[str], inherit: list[int]) -> None:
        """Start QEMU as the child of a helper, which answers for the secure processor."""
        self.folder.write("sev-device", b"")
        reader, writer = os.pipe()
        with os.fdopen(reader, "rb", buffering=0) as pipe:
            request = {
                "argv": command,
                "inherit": inherit,
                "report": writer,
                "state_folder": str(self.plan.state_folder.parent),
                "kind": self.plan.guest_type,
                "init2": bool(self.plan.security and self.plan.security.init2),
            }
            self.folder.write("rehearsal.json", json.dumps(request).encode())
            helper = [sys.executable, "-m", "sevlaunch.rehearsal", str(self.folder.file("rehearsal.json"))]
            try:
                self._companions.append(self._spawn(helper, [*inherit, writer]))
            finally:
                os.close(writer)
            # The helper writes QEMU's PID, or ends without a word.
            await _readable(pipe.fileno())
            pid = pipe.read(32).decode()
        self._process = Process.attach(int(pid)) if pid else None
        if self._process is None:
            lines = tail(self.folder.file(folders.QEMU_LOG))
            raise QemuError("the rehearsal's helper could not start QEMU", stderr=lines, hint=hint_for(lines))

    async def run(self) -> None:
        """Let the guest run its first instruction."""
        await self._while_alive(self.guest.resume())
        evidence = await self._while_alive(self.guest.evidence())
        self.guest.launch_evidence = evidence
        self._write_evidence(evidence)

    def announce(self) -> None:
        """The launch is over: from here on, other commands may take the guest down."""
        self.guest.announced()
        self._launcher.close()

    def detach(self) -> None:
        """Let the guest live on. The last thing to do: from here on nothing takes it back."""
        self.announce()
        self._detached = True

    def end(self) -> None:
        """End everything that was started, unless it was detached. Synchronous, so that nothing can cancel it."""
        processes = [*([self._process] if self._process else []), *self._companions]
        for process in processes:
            if not self._detached:
                process.kill()
            process.close()
        # Another command may have removed the folder, and one more begun to use the name.
        if not self._detached and self.folder.is_locked_by(self._lock):
            self.folder.remove()

    async def _while_alive(self, action: Awaitable[T]) -> T:
        """The result of ``action``; if QEMU dies before, an error with what it said, at once."""
        task = asyncio.ensure_future(action)
        death = asyncio.create_task(self.process.wait())
        try:
            await asyncio.wait([task, death], return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise self._death()
            error = task.exception()
            if isinstance(error, QmpError):
                if not error.error_class and await self.process.ends_within(DEATH_LIMIT):
                    raise self._death() from error
                error.stderr = tuple(tail(self.folder.file(folders.QEMU_LOG)))
                error.hint = error.hint or hint_for(error.stderr)
            return task.result()
        finally:
            for pending in (task, death):
                pending.cancel()
            await asyncio.gather(task, death, return_exceptions=True)

    def _death(self) -> QemuError:
        code = self.process.exit_code
        how = (
            "ended" if code is None else f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        )
        lines = tail(self.folder.file(folders.QEMU_LOG))
        return QemuError(
            f"QEMU {how} while {self.plan.name} was being started",
            stderr=lines,
            hint=hint_for(lines)
            or ("" if lines else "it printed nothing: was it killed by the kernel (out of memory)?"),
        )

    def _prepare_files(self) -> None:
        self.folder.share_with(self._account)
        plan = json.dumps({"argv": argv(self.plan), "choices": choices(self.plan)}, ensure_ascii=False)
        self.folder.write(folders.PLAN, plan.encode("utf-8", "surrogateescape"))
        if self.plan.security:
            for file in self.plan.security.files:
                folders.write_whole(Path(file.path), file.text.encode())
                if self._account:
                    grant(Path(file.path), self._account, READ)
        variables = self.plan.firmware.vars
        if variables and self.plan.firmware.vars_template and not Path(variables.value).exists():
            _copy_nvram(Path(self.plan.firmware.vars_template), Path(variables.value))
        if variables and self._account and Path(variables.value).is_relative_to(self.plan.state_folder):
            grant(Path(variables.value), self._account, READ | WRITE)
            for folder in (self.plan.state_folder, self.plan.state_folder.parent):
                grant(folder, self._account, PASS)

    def _make_record(self) -> Record:
        plan = self.plan
        return Record(
            name=plan.name,
            pid=self.process.pid,
            start_time=self.process.start_time,
            launched=False,
            profile=plan.profile_file,
            command=argv(plan),
            guest_type=plan.guest_type,
            vcpus=plan.machine.vcpus.value,
            binary=plan.binary.value,
            qemu_version=plan.qemu_version,
            firmware=plan.firmware.code.value,
            reboot=plan.reboot.value,
            rehearsal=plan.rehearsal,
            companions=[(process.pid, process.start_time) for process in self._companions],
        )

    def _write_evidence(self, evidence: Evidence) -> None:
        text = json.dumps(evidence.to_dict(), indent=1, ensure_ascii=False)
        self.folder.write(folders.EVIDENCE, text.encode("utf-8", "surrogateescape"))


async def _readable(fd: int) -> None:
    """Wait until there is something to read, or the end."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(fd, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(fd)


def _started(value: T | None) -> T:
    if value is None:
        raise QemuError("the guest has not been started")
    return value


def _copy_nvram(template: Path, target: Path) -> None:
    """The guest's own copy of the variable store, there whole or not at all."""
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.new-{os.getpid()}")
        try:
            shutil.copyfile(template, temporary)
            temporary.chmod(0o600)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise HostError(
            f"can't copy the NVRAM {template} to {target}: {error.strerror}",
            hint="name another place in firmware.nvram, or set XDG_STATE_HOME",
        ) from error


async def _socket_appears(socket_path: str, process: Process, log: Path) -> None:
    """Wait until a companion listens.

    :raise QemuError: when it ends before that, or does not listen in time.
    """
    from sevlaunch.guest.follow import FolderWatch

    with FolderWatch(log.parent) as watch:
        async with asyncio.timeout(COMPANION_LIMIT):
            while not os.path.exists(socket_path):  # noqa: ASYNC240, PTH110 - a lookup on tmpfs
                if process.ended:
                    lines = tail(log)
                    raise QemuError(f"{log.stem} ended before it was ready", stderr=lines, hint=hint_for(lines))
                await watch.changed(process)
