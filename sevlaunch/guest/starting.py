"""The start of one guest until QEMU runs, step by step, and how it is undone."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, BinaryIO

from msgspec import to_builtins
from msgspec.structs import replace

from sevlaunch.doctor.preflight import check_files, check_root
from sevlaunch.errors import GuestNotFound, QemuError
from sevlaunch.guest import folder as folders
from sevlaunch.guest.cgroup import make_cgroup
from sevlaunch.guest.claims import claim_lock, hold_launcher, taken
from sevlaunch.guest.console_log import ConsoleLog, make_console_log
from sevlaunch.guest.embedding import Embedding
from sevlaunch.guest.folder import GuestFolder
from sevlaunch.guest.handed import Opened
from sevlaunch.guest.helpers import REHEARSAL, helper_ended, log_of
from sevlaunch.guest.life import companions, is_locked, launch_never_finished, qemu_pid
from sevlaunch.guest.log_keeping import start_keeper
from sevlaunch.guest.private_files import private_files
from sevlaunch.guest.process import DEATH_LIMIT, Process, find_program, spawn
from sevlaunch.guest.record import CompanionProcess, FileIdentity, Login, Record, Started
from sevlaunch.guest.runtime import check_state_folder
from sevlaunch.guest.variables import prepare_variables
from sevlaunch.host.accounts import READ, find_account, grant
from sevlaunch.host.folders import state_folder
from sevlaunch.plan.command_line import argv, choices, helper_documents, monitor_on
from sevlaunch.plan.option import rule
from sevlaunch.plan.places import CONSOLE_LOG
from sevlaunch.plan.plan import Plan, handed_over

if TYPE_CHECKING:
    from sevlaunch.evidence import Ended, Evidence
    from sevlaunch.ports import ForwardInfo, SshAddress


class Start:
    """The start of one guest up to the moment that QEMU runs, and the end of what was started, unless it is let go.

    Nothing here waits, or needs asyncio, which takes as long to import as QEMU to start.

    :param launcher: what is held until the launch is over.
    :param lock: the guest's lock, for QEMU to inherit; it is closed once QEMU has it.
    """

    def __init__(self, plan: Plan, folder: GuestFolder, launcher: ExitStack, lock: int, embedding: Embedding) -> None:
        self.plan = plan
        self.folder = folder
        # The processes beside QEMU, by their names.
        self.companions: dict[str, Process] = {}
        # With the ports that QEMU has bound, once it has told them.
        self.forwards: list[ForwardInfo] = []
        self.ssh: SshAddress | None = None
        self._console: ConsoleLog | None = None
        # Where the helper of a rehearsal writes QEMU's PID, or nothing.
        self.pid_report: BinaryIO | None = None
        self._launcher = launcher
        self._lock = lock
        # The open store of variables, and that of the disks, which carry locks, too.
        self._variables = self._disks = -1
        self.login: Login | None = None
        self._embedding = embedding
        self._handed = embedding.disks or Opened()
        self.started: Started | None = None
        self.detached = False
        self._left = False
        self._process: Process | None = None
        with ExitStack() as opened:
            opened.callback(self._give_up_locks)
            # The same file without a hand on its lock: by it the folder is known for as long as this start is there.
            self._lock_file = os.open(f"/proc/self/fd/{lock}", os.O_PATH | os.O_CLOEXEC)
            opened.callback(os.close, self._lock_file)
            # A monitor of the launcher's own: connected before QEMU runs, so there is nothing to wait for, and the
            # other commands' monitor stays free.
            self.monitor, self._qemus_end = socket.socketpair()
            opened.callback(self.monitor.close)
            opened.callback(self._qemus_end.close)
            self._account = find_account(plan.run_as.value) if plan.run_as else None
            self._argv = argv(plan)
            self._open = opened.pop_all()

    @property
    def process(self) -> Process:
        """QEMU's process."""
        if self._process is None:
            raise QemuError("the guest has not been started")
        return self._process

    def begin(self) -> None:
        """Write the guest's files and start what runs beside QEMU; with nothing beside it, QEMU itself."""
        self._prepare_files()
        for companion in self.plan.companions:
            program = find_program(companion.program, companion.fallbacks, companion.remedy)
            with self._log(log_of(companion.name)) as log:
                command = [program, *companion.argv[1:]]
                self.companions[companion.name] = spawn(command, log=log, account=self._account)
        if not self.plan.companions:
            self.start_qemu()

    def start_qemu(self) -> None:
        """Start QEMU, paused; in a rehearsal, as the child of a helper."""
        fd = self._qemus_end.fileno()
        monitor = monitor_on("launcher", self.plan.monitor_object, rule("the launcher's own"))
        channel = ["-chardev", f"socket,id=launcher,fd={fd}", *monitor.argv]
        with self._qemus_end, self._opened_taps() as taps:
            line, handed = self._argv, {**taps, **self._handed.numbers}
            if handed:
                line = argv(handed_over(self.plan, handed))
            command = [*line, *channel, *self._embedding.extra_args]
            locks = [lock for lock in (self._lock, self._variables, self._disks) if lock >= 0]
            inherit = [*locks, fd, *handed.values(), *self._embedding.inherit]
            if self.plan.rehearsal:
                self._start_helper(command, inherit)
            else:
                self.keep(self._spawn(command, inherit))

    def _opened_taps(self) -> AbstractContextManager[dict[int, int]]:
        descriptors = self.plan.needs.descriptors
        if not descriptors:
            return nullcontext({})
        # Few guests have any.
        from sevlaunch.guest.taps import opened

        return opened(descriptors)

    def _start_helper(self, command: list[str], inherit: list[int]) -> None:
        """Start the helper that starts QEMU and answers for the secure processor."""
        self.folder.write("sev-device", b"")
        reader, writer = os.pipe()
        self.pid_report = self._open.enter_context(os.fdopen(reader, "rb", buffering=0))
        request = {
            "argv": command,
            "inherit": inherit,
            "report": writer,
            "state_folder": str(state_folder()),
            "kind": self.plan.guest_type,
            "init2": bool(self.plan.security and self.plan.security.init2),
        }
        helper = [sys.executable, "-m", "sevlaunch.rehearsal", str(self.folder.file("rehearsal.json"))]
        try:
            self.folder.write("rehearsal.json", json.dumps(request).encode())
            self.companions[REHEARSAL] = self._spawn(helper, [*inherit, writer])
        finally:
            os.close(writer)

    def keep(self, process: Process) -> None:
        """``process`` is QEMU: note it in the guest's folder."""
        self._process = process
        # They live exactly as long as QEMU does.
        self._give_up_locks()
        self.folder.write_record(self.record())

    def _give_up_locks(self) -> None:
        for lock in (self._lock, self._variables, self._disks):
            if lock >= 0:
                os.close(lock)
        self._lock = self._variables = self._disks = -1
        if self._embedding.disks is None:
            self._handed.close()

    def _spawn(self, command: list[str], inherit: list[int]) -> Process:
        needs, limit = self.plan.needs, self.plan.memory.limit
        with self._log(folders.QEMU_LOG) as log:
            return self._embedding.spawn(
                [*(limit.scope if limit else ()), *command],
                log=log,
                inherit=inherit,
                lock_bytes=needs.locked_memory,
                environment=dict(needs.environment),
                cgroup=make_cgroup(self.folder, limit) if limit and limit.parent else None,
                account=self._account,
            )

    @contextmanager
    def _log(self, name: str) -> Iterator[int]:
        """A log that a program gets as a descriptor: it has no way to another file of the folder."""
        with self.folder.opened() as opened:
            log = opened.make_log(name)
        try:
            yield log
        finally:
            os.close(log)

    def announce(self) -> None:
        """The launch is over: from here on, other commands may take the guest down."""
        self.folder.write_record(replace(self.record(), launched=True))
        self._launcher.close()

    def detach(self) -> None:
        """Let the guest live on. The last thing to do: from here on nothing takes it back."""
        self.announce()
        self.detached = True

    def leave(self, ended: Ended) -> None:
        """Leave the folder of a guest that nobody wanted to end to be looked at, with how it did."""
        # Somebody may have removed it.
        with suppress(GuestNotFound):
            self.folder.write(folders.ENDED, json.dumps(to_builtins(ended)).encode())
        self._left = True

    async def outcome(self, shutdown: str) -> Ended:
        """How the guest ended, now that QEMU has.

        :param shutdown: the reason of its last SHUTDOWN event, or empty.
        """
        from sevlaunch.guest.outcome import judge

        code = self.process.exit_code
        if self.plan.rehearsal:
            # QEMU is the helper's child. The helper ends as QEMU does: rehearsal.helper.
            helper = self.companions[REHEARSAL]
            code = helper.exit_code if await helper.ends_within(DEATH_LIMIT) else None
            code = 128 - code if code is not None and code > 128 else code
        return judge(shutdown, code, self.folder, self._lock_file)

    def end(self) -> None:
        """End everything that was started, unless it was detached. Synchronous, so that nothing can cancel it."""
        processes = [*([self._process] if self._process else []), *self.companions.values()]
        for process in processes:
            if not self.detached:
                process.end()
            process.close()
        # Room for what is still to be opened.
        self._give_up_locks()
        self.monitor.close()
        # Another command may have removed the folder, and one more begun to use the name.
        if not (self.detached or self._left) and self.folder.is_locked_by(self._lock_file):
            self.folder.remove()
        self._open.close()

    def log_tail(self) -> list[str]:
        """The last lines of QEMU's output."""
        return self.folder.log_tail()

    async def death(self) -> QemuError:
        """The error for a QEMU that ended while it was being started."""
        from sevlaunch.guest.diagnosis import SILENT, ended_how, hint_for

        code, lines = self.process.exit_code, self.log_tail()
        return QemuError(
            f"QEMU {ended_how(code)} while {self.plan.name} was being started",
            stderr=lines,
            hint=hint_for(lines, code) or ("" if lines else SILENT),
        )

    def keep_logs(self) -> None:
        """Start what keeps the logs within their bounds. For just before the guest runs: QEMU starts first."""
        names = {folders.QEMU_LOG, *map(log_of, self.companions)}
        with self._log(log_of(CONSOLE_LOG)) as log:
            keeper = start_keeper(self.folder, self.process, self._console, sorted(names), log)
        self.companions[CONSOLE_LOG] = keeper

    def write_evidence(self, evidence: Evidence) -> None:
        """Write what the launch showed into the guest's folder."""
        # A path may hold bytes that are no UTF-8, which JSON carries as escapes.
        self.folder.write(folders.EVIDENCE, json.dumps(evidence.to_dict(), indent=1).encode())

    def record(self) -> Record:
        """What other commands need to know about the guest."""
        plan, lock = self.plan, os.fstat(self._lock_file)
        return Record(
            name=plan.name,
            pid=self.process.pid,
            start_time=self.process.start_time,
            lock=FileIdentity(lock.st_dev, lock.st_ino),
            launched=False,
            profile=plan.profile_file,
            command=self._argv,
            guest_type=plan.guest_type,
            vcpus=plan.cpu.vcpus.value,
            binary=plan.binary.value,
            qemu_version=plan.qemu_version,
            firmware=plan.firmware.code.value,
            reboot=plan.reboot.value,
            console_log=str(plan.console.log) if plan.console else None,
            vsock_cid=plan.vsock_cid,
            rehearsal=plan.rehearsal,
            companions=self._companion_processes(),
            ssh=self.ssh,
            forwards=self.forwards,
            login=self.login,
            state_folder=str(plan.state_folder),
            origin=plan.origin,
            started=self.started,
        )

    def _companion_processes(self) -> list[CompanionProcess]:
        return [CompanionProcess(process.pid, process.start_time, name) for name, process in self.companions.items()]

    def check_helpers(self) -> None:
        """See that what QEMU needs beside it lives.

        :raise QemuError: when one of the helper programs has ended; with the end of its output.
        """
        for name, process in self.companions.items():
            if process.ended:
                raise helper_ended(self.folder, name, f"while {self.plan.name} was being started")

    def _prepare_files(self) -> None:
        if self.plan.fresh:
            # Few starts are.
            from sevlaunch.guest.removal import remove_folder

            remove_folder(self.plan.state_folder, self.plan.name)
        self.folder.make_qemu_folder(self._account)
        if self.plan.console:
            self._console = make_console_log(self.plan.console, self._account)
            self._open.callback(self._console.close)
        document = {"argv": self._argv, "choices": choices(self.plan), "helpers": helper_documents(self.plan)}
        content = json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogateescape")
        self.folder.write(folders.PLAN, content)
        for name, content in private_files(self.plan):
            self._write_for_qemu(name, content)
        if self.plan.first_boot:
            # Few guests have a seed.
            from sevlaunch.guest.first_boot import login_of

            self.login = login_of(self.plan)
        # Disks that are handed over are those of a system that goes on.
        if not (self.plan.storage.keeps_system or self._handed.numbers):
            from sevlaunch.guest.host_keys import forget_host_key

            forget_host_key(self.plan.state_folder)
        self._variables = prepare_variables(self.plan, self._account)
        if self.plan.storage.made:
            # Not every guest has any.
            from sevlaunch.guest.overlays import make_ephemeral, prepare_overlays

            self._disks = prepare_overlays(self.plan, self._account)
            make_ephemeral(self.plan, self._handed)
        if self.plan.needs.state_folders:
            # Few guests have any.
            from sevlaunch.guest.state import prepare_state_folders

            prepare_state_folders(self.plan, self._account)

    def _write_for_qemu(self, name: str, content: bytes) -> None:
        """Write a file of this user's that QEMU's account may read."""
        self.folder.write(name, content)
        if self._account:
            with self.folder.opened() as opened:
                fd = opened.open_file(name)
            try:
                grant(fd, self._account, READ)
            finally:
                os.close(fd)


@contextmanager
def started(plan: Plan, embedding: Embedding = Embedding()) -> Iterator[Start]:  # noqa: B008 - it can't be changed
    """Begin the start of a guest; leaving the block ends it, unless it was detached. For :func:`launch.finish`.

    :raise HostError: when a file is missing, or the runtime folder can't be written.
    :raise NameTaken: when a guest of that name runs, or is being started.
    :raise QemuError: when QEMU can't be started.
    """
    check_files(plan)
    check_state_folder(plan.state_folder)
    plan = check_root(plan)
    folder = GuestFolder(plan.folder.parent, plan.name)
    with ExitStack() as launcher, ExitStack() as cleanup:
        launcher.enter_context(hold_launcher(folder))
        _clear_abandoned(folder)
        lock = claim_lock(folder)
        # From here on the folder is ours, and goes unless the guest stays.
        try:
            start = Start(plan, folder, launcher, lock, embedding)
        except BaseException:
            folder.remove()
            raise
        cleanup.callback(start.end)
        folder.clear()
        start.begin()
        yield start


def _clear_abandoned(folder: GuestFolder) -> None:
    """End what a launcher left behind that was killed in the middle of a start. Needs :func:`hold_launcher`.

    :raise NameTaken: when a guest lives there that was launched, also one whose lock file somebody deleted, or that
        `render --format shell` started: it does not hold the lock.
    """
    pid = qemu_pid(folder)
    if pid and not (is_locked(folder) and launch_never_finished(folder)):
        raise taken(folder)
    process = Process.attach(pid) if pid else None
    for left in (*([process] if process else []), *companions(folder)):
        left.kill()
        left.close()
