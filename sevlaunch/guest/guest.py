"""A running guest, for programs: ask QEMU, act on the guest, follow its events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Coroutine
from contextlib import asynccontextmanager
from functools import cached_property
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec.structs import replace

from sevlaunch.errors import GuestEnded, QemuError
from sevlaunch.evidence import Ended, Evidence, SevInfo
from sevlaunch.guest.alive import unless, while_alive
from sevlaunch.guest.ending import ANSWER_LIMIT, POWERDOWN_LIMIT, end_guest, end_qemu, press_power_button
from sevlaunch.guest.evidence import gather, launch_measurement, read_evidence, sev_info, shown_state
from sevlaunch.guest.folder import GuestFolder, find
from sevlaunch.guest.life import qemu_pid
from sevlaunch.guest.monitor import PROGRAMS_TURN_LIMIT, Qmp, programs_monitor
from sevlaunch.guest.outcome import CRASHED, crashed, died, failure, seen
from sevlaunch.guest.process import Process, one_ends
from sevlaunch.guest.record import Record, Started
from sevlaunch.guest.starting import Start
from sevlaunch.host.folders import runtime_folder
from sevlaunch.ports import ForwardInfo

if TYPE_CHECKING:
    # Ways into the guest: each is imported once it is taken.
    from sevlaunch.guest.agent import Agent
    from sevlaunch.guest.agent_programs import ProgramEnd
    from sevlaunch.guest.serial import Console
    from sevlaunch.guest.ssh import Way

T = TypeVar("T")

# Seconds between the end of QEMU and that of the helpers that end with it, whichever is seen first.
_WITH_QEMU = 1.0


class Guest:
    """A guest that runs: from :func:`sevlaunch.launch`, or :meth:`attach` for one that another program started."""

    def __init__(self, folder: GuestFolder, record: Record, process: Process, qmp: Qmp) -> None:
        self._folder = folder
        self._record = record
        self._process = process
        self._qmp = qmp
        # What a condition that is waited for was told last, for the error when it is not reached.
        self.obstacle = ""

    @classmethod
    @asynccontextmanager
    async def attach(
        cls, name: str, *, root: Path | None = None, limit: float = PROGRAMS_TURN_LIMIT
    ) -> AsyncIterator[Guest]:
        """The guest ``name``; leaving the block lets it run on. One program at a time is attached to a guest.

        :param root: the folder of all guests; default: the user's runtime folder.
        :param limit: seconds to wait for another program that is attached.
        :raise GuestNotFound: when there is none; GuestEnded when it does not run any more.
        :raise GuestBusy: when another program was attached all the time.
        :raise GuestTimeout: when QEMU is stuck.
        :raise QmpError: when QEMU does not speak QMP.
        """
        folder = find(root or runtime_folder(), name)
        record, pid = folder.record(), qemu_pid(folder)
        process = Process.attach(pid) if pid else None
        if record is None or process is None:
            raise GuestEnded(f"the guest {name!r} does not run", hint=f"its output: sevlaunch logs {quote(name)}")
        try:
            async with programs_monitor(folder, turn_limit=limit) as qmp:
                guest = cls(folder, record, process, qmp)
                try:
                    yield guest
                finally:
                    guest.close_console()
        finally:
            process.close()

    @property
    def name(self) -> str:
        """Its name."""
        return self._record.name

    @property
    def pid(self) -> int:
        """QEMU's PID."""
        return self._process.pid

    @property
    def folder(self) -> Path:
        """Its runtime folder."""
        return self._folder.path

    @cached_property
    def console(self) -> Console:
        """Its serial console."""
        from sevlaunch.guest.serial import Console

        return Console(self._folder, self._process)

    def close_console(self) -> None:
        """Close its console, if anybody has asked for it."""
        if "console" in vars(self):
            self.console.close()

    @cached_property
    def agent(self) -> Agent:
        """The guest agent in it, if its profile gives it a channel."""
        from sevlaunch.guest.agent import Agent

        return Agent(self._folder)

    @property
    def vsock_cid(self) -> int | None:
        """Its vsock context ID; None when it has no vsock."""
        return self._record.vsock_cid

    @property
    def forwards(self) -> list[ForwardInfo]:
        """The host's ports that lead into it."""
        return self._record.forwards

    @property
    def has_ssh(self) -> bool:
        """Whether there is a way to an SSH server in it: a port, or its vsock."""
        return self._record.ssh is not None or self._record.vsock_cid is not None

    @property
    def knows_login(self) -> bool:
        """Whether its first boot lets a key in that its user has here."""
        return self._record.login is not None

    def ssh_way(self) -> Way:
        """How an SSH server in it is reached, and as whom.

        :raise UsageError: when there is no way to one.
        """
        from sevlaunch.guest.ssh import find_way

        return find_way(self._record, self._folder.path)

    async def ssh(self, *command: str, given: bytes = b"") -> ProgramEnd:
        """Run a command in it by SSH, as who its first boot lets in, and wait for its end.

        One word is a line for the guest's shell; several are a program and its arguments, which arrive as they are.

        :param given: what the command reads from its standard input.
        :return: exit code 255 is ssh's own where it could not get in, and says why in ``stderr``.
        :raise UsageError: when there is no way to an SSH server in it.
        :raise HostError: when this host has no ssh.
        """
        from sevlaunch.guest.ssh import run_over_ssh

        return await run_over_ssh(self.ssh_way(), command, given=given)

    async def while_alive(self, action: Awaitable[T]) -> T:
        """The result of ``action``, which is cancelled when the guest ends before.

        :raise QemuError: when it does; with the end of QEMU's output.
        """
        return await while_alive(action, self._process, self._folder, self._death)

    async def while_sound(self, action: Awaitable[T]) -> T:
        """The result of ``action``, which is cancelled when the guest ends or crashes before.

        :raise QemuError: when it does; with the end of QEMU's output.
        """
        return await self.while_alive(unless(action, *self._troubles()))

    def _troubles(self) -> list[Coroutine[Any, Any, None]]:
        """What keeps the guest from doing what is waited for while its QEMU lives: each raises when it comes."""
        return [self._raise_when_crashed()]

    async def _raise_when_crashed(self) -> None:
        # From this moment on; what was before is in the state of now.
        stops = self._qmp.events(self._process, ("STOP",))
        state = await self._state_after_stop()
        while state not in CRASHED:
            if await anext(stops, None) is None:
                return
            state = await self._state_after_stop()
        raise self.failure(crashed(state))

    async def _state_after_stop(self) -> str:
        try:
            return await self.state()
        except QemuError:
            # It stops before it ends, too.
            return ""

    def failure(self, ended: Ended) -> QemuError:
        """The error for an end that nobody wanted."""
        return failure(self.name, ended, self._folder)

    async def _death(self) -> QemuError:
        return self.failure(seen(await self._qmp.shutdown_reason()))

    async def qmp(self, command: str, **arguments: Any) -> Any:
        """What QEMU returns for a QMP command.

        Arguments with a dash in their name go in with an underscore where QEMU has a dash.

        :raise QmpError: when QEMU refuses it, or is gone.
        :raise GuestTimeout: when QEMU does not answer.
        """
        return await self._qmp.execute(command, {key.replace("_", "-"): value for key, value in arguments.items()})

    def events(self) -> AsyncIterator[dict[str, Any]]:
        """QMP's events from this call on, until QEMU is gone."""
        return self._qmp.events(self._process)

    async def state(self) -> str:
        """QEMU's run state, such as running; ``paused`` before the first instruction, too."""
        return shown_state(await self._qmp.execute("query-status"))

    async def sev_info(self) -> SevInfo:
        """What QEMU says of SEV in this guest."""
        return await sev_info(self._qmp, self._record.guest_type)

    async def launch_measurement(self) -> str | None:
        """The launch measurement: base64 of MEASURE and MNONCE; None for a guest that has none."""
        return await launch_measurement(self._qmp)

    async def evidence(self) -> Evidence:
        """What the launch showed, with the state of now."""
        written = read_evidence(self._folder)
        firmware = written.firmware if written else None
        found = await gather(self._qmp, self._record, firmware_sha256=firmware.sha256 if firmware else None)
        if written is None:
            return found
        return replace(found, report=written.report, certificates=written.certificates)

    async def inject_secret(self, header: str, payload: str, *, gpa: int | None = None) -> None:
        """Hand the owner's secret to the secure processor: QMP ``sev-inject-launch-secret``.

        :param header: base64 of 52 bytes.
        :param payload: base64 of the ciphertext.
        :param gpa: where in the guest; default: where the firmware's table says.
        :raise QmpError: when the processor refuses it.
        """
        arguments: dict[str, Any] = {"packet-header": header, "secret": payload}
        if gpa is not None:
            arguments["gpa"] = gpa
        await self._qmp.execute("sev-inject-launch-secret", arguments)

    async def resume(self) -> None:
        """Let it run."""
        await self._qmp.execute("cont")

    async def pause(self) -> None:
        """Stop its vCPUs."""
        await self._qmp.execute("stop")

    async def powerdown(self, *, limit: float = POWERDOWN_LIMIT) -> bool:
        """Press the power button until the guest's system powers down; whether it did within ``limit`` seconds."""
        return await press_power_button(self._ask, self._process, limit=limit)

    async def _ask(self, command: str, limit: float) -> Any:
        return await self._qmp.execute(command, limit=min(limit, ANSWER_LIMIT))

    async def wait(self) -> None:
        """Wait until QEMU ends."""
        await self._process.wait()


class LaunchedGuest(Guest):
    """A guest that this program has just started. It ends with the block of :func:`sevlaunch.launch`.

    ``launch_evidence`` is what the launch showed.
    """

    def __init__(
        self,
        record: Record,
        qmp: Qmp,
        launch_evidence: Evidence,
        start: Start,
    ) -> None:
        super().__init__(start.folder, record, start.process, qmp)
        self.launch_evidence = launch_evidence
        self._start = start
        # From before the first instruction on: what came before somebody listens would not be heard.
        self._stops = qmp.events(start.process, ("STOP",))

    async def run(self) -> None:
        """Let a guest that was launched paused run its first instruction; ``launch_evidence`` shows it."""
        await while_alive(self.resume(), self._process, self._folder, self._start.death)
        self.launch_evidence = await while_alive(self.evidence(), self._process, self._folder, self._start.death)
        self._start.write_evidence(self.launch_evidence)

    async def end(self) -> None:
        """End it: QMP's quit, then SIGTERM, then SIGKILL, each within a limit."""
        if not self._process.ended:
            await end_qemu(self._ask, self._process)

    def end_at_once(self) -> None:
        """End it without asking, by SIGTERM, then SIGKILL."""
        self._process.end()

    async def take_down(self, *, limit: float = POWERDOWN_LIMIT) -> str:
        """Press the power button, then end it as :meth:`end`; how it ended, as for `sevlaunch down`.

        :param limit: seconds that the guest's system has for the power-down.
        """
        return await end_guest(self._ask, self._process, now=False, limit=limit)

    def leave(self, ended: Ended) -> None:
        """Leave what is known of a guest that nobody wanted to end, with its logs, for other commands to look at."""
        self._start.leave(ended)

    def check_helpers(self) -> None:
        """See that the helper programs live: passt, virtiofsd.

        :raise QemuError: when one has ended; with the end of its output.
        """
        self._start.check_helpers()

    def note_start(self, started: Started) -> None:
        """Note how it was started, for who starts it so again; before it is announced, or detached."""
        self._start.started = started

    def announce(self) -> None:
        """Let other programs take it down, too."""
        self._start.announce()

    def detach(self) -> None:
        """Let it live on after the block. The last thing to do: from here on nothing takes it back."""
        self._start.detach()

    async def until_end(self) -> Ended:
        """Wait until QEMU ends, or the guest can't go on, whose QEMU then still is there; how it ended."""
        async for _ in self._stops:
            if (state := await self._state_after_stop()) in CRASHED:
                return crashed(state)
        return await self._start.outcome(await self._qmp.shutdown_reason())

    def _troubles(self) -> list[Coroutine[Any, Any, None]]:
        return [*super()._troubles(), self._raise_when_helper_ends()]

    async def _raise_when_helper_ends(self) -> None:
        await one_ends(self._start.companions.values())
        # Those that end with QEMU are not the reason.
        if not await self._process.ends_within(_WITH_QEMU):
            self.check_helpers()

    async def _death(self) -> QemuError:
        ended = seen(await self._qmp.shutdown_reason())
        return self.failure(ended if ended.reason else died(self._process.exit_code))
