"""Conditions that a system in a guest reaches: somebody can log in, and its first boot is done."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from shlex import quote
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from sevlaunch.errors import Problem, QmpError, SevlaunchError, UsageError
from sevlaunch.guest.agent_programs import ProgramEnd, run_program
from sevlaunch.guest.conditions import PortOpens, VsockOpens
from sevlaunch.guest.ssh import FAILED, Way, run_over_ssh

if TYPE_CHECKING:
    from sevlaunch.guest.guest import Guest

# Between two attempts: nobody tells when a system has come so far.
_PAUSE = 0.5
# Seconds until the server has to answer in one attempt.
_CONNECT_LIMIT = 10
# ssh's sshconnect.c and sshconnect2.c, which speak English alone.
_CHANGED = "Host key verification failed"
_REFUSED = "Permission denied"
# cloud-init: 0 done, 1 it failed, 2 done with what it calls recoverable errors (since 23.4).
_STATUS = ("cloud-init", "status", "--wait", "--long")
_DONE = (0, 2)
_NO_PROGRAM = 127


class SshAnswers(Struct, frozen=True):
    """Somebody can log in by SSH; where no login of the guest is known, its server answers."""

    def __str__(self) -> str:
        return "ssh"

    async def reached(self, guest: Guest) -> None:
        """Try until it works.

        :raise UsageError: when there is no way to the guest's SSH server.
        :raise SevlaunchError: when another server answers than the first time.
        """
        way = guest.ssh_way()
        opens = VsockOpens(way.port) if way.vsock_cid is not None else PortOpens(way.host, way.port)
        # ssh itself would hold one connection for long.
        await opens.reached(guest)
        while not await _login_works(guest, way):  # noqa: ASYNC110 - nobody sends an event
            await asyncio.sleep(_PAUSE)


class CloudInitDone(Struct, frozen=True):
    """cloud-init has done all that it does at a boot."""

    def __str__(self) -> str:
        return "cloud-init"

    async def reached(self, guest: Guest) -> None:
        """Ask through the guest agent and by SSH, whichever answers first.

        :raise UsageError: when the guest has neither.
        :raise SevlaunchError: when cloud-init failed, or is not there; with what it says.
        """
        ways = [way for way, there in ((_by_agent, guest.agent.there), (_by_ssh, guest.has_ssh)) if there]
        if not ways:
            raise UsageError(
                f"cloud-init in {guest.name} can't be asked",
                hint="set guest_agent: true, or networks: [{type: user, ssh: auto}], in its profile",
            )
        _check(guest.name, await _first([way(guest, _STATUS) for way in ways]))


async def _login_works(guest: Guest, way: Way) -> bool:
    end = await run_over_ssh(way, ["true"], connect_limit=_CONNECT_LIMIT)
    if end.exit_code == 0:
        return True
    told = end.stderr.decode(errors="backslashreplace").strip()
    if _CHANGED in told:
        raise SevlaunchError(
            f"the SSH server of {guest.name} has another host key than at the first contact",
            problems=[Problem(line) for line in told.splitlines() if not line.startswith("@")],
            hint=f"if its system was made anew: rm {quote(str(way.known_hosts))}; else find out who answers there",
        )
    guest.obstacle = told.splitlines()[-1] if told else ""
    return _REFUSED in told and not guest.knows_login


async def _first(runs: Sequence[Coroutine[Any, Any, ProgramEnd]]) -> ProgramEnd:
    """What comes first; an agent that refuses leaves it to the other."""
    tasks = [asyncio.ensure_future(run) for run in runs]
    try:
        for left, next_one in zip(range(len(tasks) - 1, -1, -1), asyncio.as_completed(tasks), strict=True):
            try:
                return await next_one
            except QmpError:
                if not left:
                    raise
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    raise AssertionError("there is one at least")


async def _by_ssh(guest: Guest, command: Sequence[str]) -> ProgramEnd:
    while True:
        await SshAnswers().reached(guest)
        end = await guest.ssh(*command)
        # The guest may reboot meanwhile, or start its server again.
        if end.exit_code != FAILED:
            return end


async def _by_agent(guest: Guest, command: Sequence[str]) -> ProgramEnd:
    await guest.agent.ping()
    return await run_program(guest.agent, command)


def _check(name: str, end: ProgramEnd) -> None:
    told = (end.stdout + end.stderr).decode(errors="backslashreplace").strip()
    if end.exit_code == _NO_PROGRAM:
        raise SevlaunchError(f"{name} has no cloud-init", problems=[Problem(line) for line in told.splitlines()])
    if end.exit_code not in _DONE or "status: disabled" in told:
        raise SevlaunchError(
            f"cloud-init failed in {name}",
            problems=[Problem(line.expandtabs(2)) for line in told.splitlines()],
            hint="in the guest, /var/log/cloud-init.log and /var/log/cloud-init-output.log say more",
        )
