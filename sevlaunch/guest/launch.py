"""Plan -> running guest. Whatever happens on the way, either the guest runs or nothing of it is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from sevlaunch.errors import GuestTimeout, Problem, QemuError
from sevlaunch.guest.diagnosis import hint_for
from sevlaunch.guest.embedding import Embedding, Spawner
from sevlaunch.guest.folder import GuestFolder
from sevlaunch.guest.helpers import helper_ended, log_of
from sevlaunch.guest.process import Process, spawn
from sevlaunch.guest.starting import Start, started
from sevlaunch.plan.needs import Companion
from sevlaunch.plan.plan import Plan
from sevlaunch.units import parse_ranges

if TYPE_CHECKING:
    from sevlaunch.guest.guest import LaunchedGuest
    from sevlaunch.guest.monitor import Qmp

# Time for QEMU to be ready: a start, and filling a GiB of memory takes well under a second.
START_LIMIT = 60.0
SECONDS_PER_GIB = 1.0
# QEMU makes one after the other; 700 take two minutes in an emulated processor.
SECONDS_PER_VCPU = 0.5
COMPANION_LIMIT = 10.0


@asynccontextmanager
async def launch(
    plan: Plan,
    *,
    paused: bool = False,
    limit: float | None = None,
    spawner: Spawner = spawn,
    extra_args: Sequence[str] = (),
    inherit: Sequence[int] = (),
) -> AsyncIterator[LaunchedGuest]:
    """Start a guest; leaving the block ends it, unless it was detached.

    :param paused: leave it before its first instruction.
    :param limit: seconds for the start as a whole; default: a minute, and more with much memory or many vCPUs.
    :param spawner: what starts QEMU, and the processes beside it.
    :param extra_args: further arguments for QEMU, as they are.
    :param inherit: further file descriptors for QEMU, under the same numbers.
    :raise HostError: when a file is missing, or the runtime folder can't be written.
    :raise NameTaken: when a guest of that name runs, or is being started.
    :raise QemuError: when QEMU fails; the error has the end of its output.
    :raise GuestTimeout: when it is not ready within ``limit``.
    """
    with started(plan, Embedding(spawner, tuple(extra_args), tuple(inherit))) as start:
        async with finish(start, paused=paused, limit=limit) as guest:
            yield guest


@asynccontextmanager
async def finish(start: Start, *, paused: bool = False, limit: float | None = None) -> AsyncIterator[LaunchedGuest]:
    """The guest of a start that was begun; leaving the block ends it, unless it was detached. As :func:`launch`."""
    plan = start.plan
    usual = START_LIMIT + SECONDS_PER_GIB * (plan.memory.size.value >> 30) + SECONDS_PER_VCPU * plan.cpu.vcpus.value
    seconds = usual if limit is None else limit
    async with AsyncExitStack() as connection:
        try:
            async with asyncio.timeout(seconds):
                guest = await _bring_up(start, connection)
                connection.callback(guest.close_console)
                if not paused:
                    await guest.run()
        except TimeoutError as error:
            lines = start.log_tail()
            raise GuestTimeout(
                f"{plan.name} was not ready within {seconds:g} s",
                problems=[Problem(f"qemu: {line}") for line in lines],
                hint=hint_for(lines) or "give it longer with --timeout",
            ) from error
        try:
            yield guest
        finally:
            if not start.detached:
                await guest.end()


async def _bring_up(start: Start, connection: AsyncExitStack) -> LaunchedGuest:
    """Wait until QEMU answers, and read what the launch shows. ``connection`` gets what is to be closed in the end."""
    plan = start.plan
    for companion in plan.companions:
        await _socket_appears(start.folder, companion, start.companions[companion.name])
    if plan.companions:
        start.start_qemu()
    if start.pid_report:
        await _rehearsed(start, start.pid_report)
    # Imported while QEMU starts: asyncio's streams and qemu.qmp take as long as QEMU itself.
    from sevlaunch.guest.alive import while_alive
    from sevlaunch.guest.evidence import check_encryption, gather, sha256_of
    from sevlaunch.guest.guest import LaunchedGuest
    from sevlaunch.guest.monitor import session

    firmware_sha256 = sha256_of(plan.firmware.code.value)
    connecting = connection.enter_async_context(session(start.monitor, limit=float("inf")))
    qmp = await while_alive(connecting, start.process, start.folder, start.death)
    if plan.cpu.pins:
        from sevlaunch.guest.pinning import pin

        cpus = [frozenset(parse_ranges(one.value)) for one in plan.cpu.pins]
        await while_alive(pin(qmp, start.process.pid, cpus), start.process, start.folder, start.death)
    if any(network.backend.forwarded for network in plan.networks):
        await while_alive(_find_ports(start, qmp), start.process, start.folder, start.death)
    record = start.record()
    gathering = gather(qmp, record, firmware_sha256=firmware_sha256)
    evidence = await while_alive(gathering, start.process, start.folder, start.death)
    check_encryption(evidence, plan.security.policy.value if plan.security else None)
    start.write_evidence(evidence)
    start.keep_logs()
    return LaunchedGuest(record, qmp, evidence, start)


async def _find_ports(start: Start, qmp: Qmp) -> None:
    """Note the ports that lead into the guest: QEMU itself has taken a free one where the plan names none."""
    from sevlaunch.guest.user_network import with_bound_ports
    from sevlaunch.ports import SshAddress

    networks = start.plan.networks
    forwards = {network.name: list(network.backend.forwarded) for network in networks}
    if any(forward.port == 0 for wanted in forwards.values() for forward in wanted):
        text = str(await qmp.execute("human-monitor-command", {"command-line": "info usernet"}))
        forwards = {name: with_bound_ports(text, name, wanted) for name, wanted in forwards.items()}
    start.forwards = [forward for found in forwards.values() for forward in found]
    for network in networks:
        if network.backend.ssh_forward:
            port = forwards[network.name][0]
            login = start.login
            start.ssh = SshAddress(port.host, port.port, login.user if login else None)


async def _rehearsed(start: Start, pid_report: BinaryIO) -> None:
    # The helper writes QEMU's PID, or ends without a word.
    await _readable(pid_report.fileno())
    pid = pid_report.read(32).decode()
    process = Process.attach(int(pid)) if pid else None
    if process is None:
        lines = start.log_tail()
        raise QemuError("the rehearsal's helper could not start QEMU", stderr=lines, hint=hint_for(lines))
    start.keep(process)


async def _readable(fd: int) -> None:
    """Wait until there is something to read, or the end."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(fd, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(fd)


async def _socket_appears(folder: GuestFolder, companion: Companion, process: Process) -> None:
    """Wait until a companion listens.

    :raise QemuError: when it ends before that.
    :raise GuestTimeout: when it does not listen in time.
    """
    from sevlaunch.guest.watch import FolderWatch

    with folder.qemu_folder() as opened, FolderWatch(opened) as watch:
        try:
            async with asyncio.timeout(COMPANION_LIMIT):
                while not opened.has(Path(companion.socket).name):
                    if process.ended:
                        raise helper_ended(folder, companion.name, "before it was ready")
                    await watch.changed(process)
        except TimeoutError as error:
            raise GuestTimeout(
                f"{companion.name} did not listen within {COMPANION_LIMIT:g} s",
                problems=[Problem(line) for line in folder.log_tail(log_of(companion.name))],
            ) from error
