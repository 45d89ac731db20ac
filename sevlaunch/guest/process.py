"""Starting, watching and ending processes, by pidfd: no PID is ever signalled that belongs to somebody else."""

from __future__ import annotations

import os
import resource
import select
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from sevlaunch.errors import HostError, QemuError
from sevlaunch.host.accounts import Account

# Where programs are, and how dates and messages look.
_PUBLIC_VARIABLES = ("PATH", "LANG", "LC_ALL", "TZ")

KILL_LIMIT = 10.0
# How long a process may take to end by itself after SIGTERM.
TERMINATE_LIMIT = 5.0
# How long a QEMU that hung up its QMP connection may take to be gone.
DEATH_LIMIT = 5.0


class Process:
    """A process, ours or another command's, held by its pidfd."""

    def __init__(self, pid: int, pidfd: int, child: subprocess.Popen[bytes] | None = None) -> None:
        self.pid = pid
        self.start_time = process_start_time(pid) or 0
        self._pidfd = pidfd
        self._child = child
        self._waiting: list[Callable[[], None]] = []

    @classmethod
    def attach(cls, pid: int, start_time: int | None = None) -> Process | None:
        """The process ``pid``, or None if it is gone, or the PID belongs to another one by now."""
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return None
        # With the pidfd in hand the PID can't be reused any more: what is true now stays true.
        now = process_start_time(pid)
        if now is None or (start_time is not None and now != start_time):
            os.close(pidfd)
            return None
        return cls(pid, pidfd)

    @property
    def pidfd(self) -> int:
        """Its pidfd, for another process to inherit."""
        return self._pidfd

    @property
    def ended(self) -> bool:
        """Whether the process has ended."""
        return bool(select.select([self._pidfd], [], [], 0)[0])

    @property
    def exit_code(self) -> int | None:
        """The exit code of our own child, negative for a signal; None while it runs, or for another's child."""
        return self._child.poll() if self._child else None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; a process that has ended already is no error."""
        try:
            signal.pidfd_send_signal(self._pidfd, number)
        except ProcessLookupError:
            return

    async def wait(self) -> None:
        """Wait until the process ends. Several may wait at the same time, in one event loop."""
        # QEMU is started before asyncio is imported, which takes as long.
        import asyncio

        loop = asyncio.get_running_loop()
        done = asyncio.Event()
        self._waiting.append(done.set)
        # One reader for all: a second one would replace the first.
        loop.add_reader(self._pidfd, self._wake)
        try:
            await done.wait()
        finally:
            self._waiting.remove(done.set)
            if not self._waiting:
                loop.remove_reader(self._pidfd)

    def _wake(self) -> None:
        for wake in self._waiting:
            wake()

    async def ends_within(self, limit: float) -> bool:
        """Whether the process ends within ``limit`` seconds."""
        import asyncio

        try:
            async with asyncio.timeout(limit):
                await self.wait()
        except TimeoutError:
            return False
        return True

    def kill(self) -> None:
        """End the process at once, and wait until it is gone. Synchronous, so that nothing can cancel it."""
        self.signal(signal.SIGKILL)
        select.select([self._pidfd], [], [], KILL_LIMIT)
        if self._child:
            self._child.wait()

    def end(self) -> None:
        """End the process: SIGTERM, and SIGKILL when that is not enough. Synchronous, so that nothing can cancel it."""
        self.signal(signal.SIGTERM)
        select.select([self._pidfd], [], [], TERMINATE_LIMIT)
        self.kill()

    def close(self) -> None:
        """Let go of the process; it lives on."""
        os.close(self._pidfd)
        if self._child and self._child.poll() is None:
            # Nobody else can take away what is left of a child that ends while this process lives on.
            threading.Thread(target=self._child.wait, name=f"sevlaunch: end of {self.pid}", daemon=True).start()


async def one_ends(processes: Collection[Process]) -> None:
    """Wait until one of them ends; for ever where there is none."""
    import asyncio

    waits: list[asyncio.Future[None]] = [asyncio.ensure_future(process.wait()) for process in processes]
    if not waits:
        waits.append(asyncio.get_running_loop().create_future())
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)


def spawn(
    argv: Sequence[str],
    *,
    log: int,
    inherit: Sequence[int] = (),
    lock_bytes: int = 0,
    environment: Mapping[str, str] | None = None,
    cgroup: Path | None = None,
    account: Account | None = None,
) -> Process:
    """Start ``argv`` in a session of its own.

    :param log: file descriptor that takes its output.
    :param inherit: file descriptors that the process keeps.
    :param lock_bytes: memory that it may lock, RLIMIT_MEMLOCK in bytes; 0 leaves the limit as it is.
    :param environment: variables beside those of this process.
    :param cgroup: the cgroup v2 that it is to be in from its first instruction on.
    :param account: the user that it runs as instead of this one, and who sees nothing of this one's variables.
    :raise QemuError: when it can't be started.
    """
    try:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=tuple(inherit),
            start_new_session=True,
            # QEMU makes its sockets and the console's log itself.
            umask=0o077,
            cwd="/",
            env={**_inherited(account), **(environment or {})},
            preexec_fn=_prepare(lock_bytes, cgroup, account) if lock_bytes or cgroup or account else None,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise QemuError(f"can't start {argv[0]}: {error}", hint="see `sevlaunch host`") from error
    return Process(child.pid, os.pidfd_open(child.pid), child)


def _inherited(account: Account | None) -> dict[str, str]:
    """The variables of this process that are for the new one, too: all of them, or what another user may know."""
    names = os.environ if account is None else [name for name in _PUBLIC_VARIABLES if name in os.environ]
    return {name: os.environ[name] for name in names}


def _prepare(lock_bytes: int, cgroup: Path | None, account: Account | None) -> Callable[[], None]:
    def prepare() -> None:
        if cgroup:
            (cgroup / "cgroup.procs").write_text(str(os.getpid()))
        if lock_bytes:
            _raise_lock_limit(lock_bytes)
        # Last: the account may do neither.
        if account:
            account.become()

    return prepare


def _raise_lock_limit(lock_bytes: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    unlimited = resource.RLIM_INFINITY
    if soft == unlimited or soft >= lock_bytes:
        return
    wanted = hard if hard == unlimited else max(hard, lock_bytes)
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (lock_bytes, wanted))
    except ValueError:
        # Raising the hard limit takes CAP_SYS_RESOURCE; with CAP_IPC_LOCK alone the limits don't count at all.
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))


def find_program(name: str, fallbacks: Sequence[str], remedy: str) -> str:
    """The path of a program that runs beside QEMU.

    :raise HostError: when it is not there, with ``remedy`` as the hint.
    """
    for candidate in (name, *fallbacks):
        found = shutil.which(candidate)
        if found:
            return found
    raise HostError(f"the program {name} is missing", hint=remedy)


def process_start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot (/proc/PID/stat, field 22); None for a dead one."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name in field 2 may hold spaces and parentheses.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in ("Z", "X") else int(fields[19])
