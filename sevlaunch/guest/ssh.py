"""The way into a guest by SSH: the system's ssh and scp, with a login and a file of host keys of the guest's own.

Neither the user's nor the system's configuration of ssh is read: what a Host * there says is meant for other machines.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from msgspec import Struct

from sevlaunch.errors import HostError, UsageError
from sevlaunch.guest import vsock_connection
from sevlaunch.guest.agent_programs import ProgramEnd
from sevlaunch.guest.host_keys import prepare_known_hosts
from sevlaunch.guest.record import Record
from sevlaunch.plan.network_backends import SSH_PORT
from sevlaunch.plan.places import KNOWN_HOSTS
from sevlaunch.profile.network_rules import LOOPBACK

# Seconds until somebody has answered, not only QEMU's network, which holds a connection until the guest takes it.
CONNECT_LIMIT = 30
# ssh's own exit code for what went wrong before the command ran.
FAILED = 255
# As much of each output is kept as the guest agent keeps: a guest may send on and on.
LONGEST_OUTPUT = 16 << 20
_PIECE = 1 << 16
# The host's name in the file of host keys, which is one guest's: ports come and go.
_ALIAS = "guest"


class Way(Struct, frozen=True):
    """How a guest's SSH server is reached, and as whom.

    :param vsock_cid: the guest's, where it is reached so; else ``host`` and ``port`` lead there.
    :param user: None: whom ssh takes by itself, this user.
    :param key: the private key's file; None: those that ssh finds by itself, and those of the agent.
    :param known_hosts: the guest's host key, from the first contact on.
    :param alone: no other key than ``key``.
    """

    host: str
    port: int
    vsock_cid: int | None
    user: str | None
    key: str | None
    known_hosts: Path
    alone: bool = False

    def options(self, *, batch: bool = False, connect_limit: int = CONNECT_LIMIT) -> list[str]:
        """The options for ssh and scp.

        :param batch: nobody is there to be asked for a password.
        :raise HostError: when a file's name can't be given to ssh.
        """
        settings = {
            "HostKeyAlias": _ALIAS,
            "UserKnownHostsFile": _file(str(self.known_hosts)),
            "GlobalKnownHostsFile": "/dev/null",
            "StrictHostKeyChecking": "accept-new",
            "UpdateHostKeys": "no",
            "ConnectTimeout": str(connect_limit),
            "LogLevel": "ERROR",
            "Port": str(self.port),
        }
        if self.user is not None:
            settings["User"] = _quoted(self.user)
        if self.key is not None:
            settings["IdentityFile"] = _file(self.key)
        if self.alone:
            settings["IdentitiesOnly"] = "yes"
        if self.vsock_cid is not None:
            command = [sys.executable, "-IS", vsock_connection.__file__, str(self.vsock_cid), str(self.port)]
            settings |= {"ProxyCommand": shlex.join(command).replace("%", "%%"), "ProxyUseFdpass": "yes"}
        if batch:
            settings["BatchMode"] = "yes"
        return ["-F", "none", *(word for key, value in settings.items() for word in ("-o", f"{key}={value}"))]

    def remote(self, path: str) -> str:
        """A path in the guest, for scp."""
        return f"{self.host}:{path}"


def find_way(record: Record, folder: Path, *, user: str | None = None, key: Path | None = None) -> Way:
    """The way into a guest: its forwarded port for SSH, or else its vsock.

    :param folder: the guest's runtime folder.
    :param user: another one than the guest's first boot has made.
    :param key: the file of another private key.
    :raise UsageError: when the guest has neither.
    """
    ssh, cid, login = record.ssh, record.vsock_cid, record.login
    if ssh is None and cid is None:
        raise UsageError(
            f"{record.name} has no port for SSH",
            hint="set networks: [{type: user, ssh: auto}] in its profile, or vsock: auto",
        )
    return Way(
        host=ssh.host if ssh else LOOPBACK,
        port=ssh.port if ssh else SSH_PORT,
        vsock_cid=None if ssh else cid,
        user=user or (login.user if login else None),
        key=str(key.absolute()) if key else login.key if login else None,
        known_hosts=Path(record.state_folder or folder) / KNOWN_HOSTS,
        alone=key is not None or (login is not None and login.alone),
    )


def ssh_argv(
    way: Way, command: Sequence[str], *, terminal: bool = False, batch: bool = False, connect_limit: int = CONNECT_LIMIT
) -> list[str]:
    """The command line of ssh; without a ``command``, for a shell.

    One word goes to the guest's shell as it is; several are a program and its arguments, which arrive as they are.

    :param terminal: the command gets a terminal.
    :raise HostError: when there is no ssh, or a file's name can't be given to it.
    """
    words = [_program("ssh"), *way.options(batch=batch, connect_limit=connect_limit), *(["-t"] if terminal else [])]
    # ssh looks for options behind the host, too, unless they have ended before it.
    words += ["--", way.host]
    return [*words, command[0] if len(command) == 1 else shlex.join(command)] if command else words


def scp_argv(way: Way, source: str, target: str, *, recursive: bool) -> list[str]:
    """The command line of scp; ``source`` and ``target`` are as :func:`local` and :meth:`Way.remote` give them."""
    # SFTP: no shell of the guest reads the path.
    return [_program("scp"), "-s", *way.options(), *(["-r"] if recursive else []), "--", source, target]


def local(path: str) -> str:
    """A path of this host, for scp: neither an option nor another host's, whatever is in it."""
    return path if path.startswith("/") else f"./{path}"


def become(argv: Sequence[str]) -> NoReturn:
    """Go on as another program, whose exit code is this one's."""
    sys.stdout.flush()
    sys.stderr.flush()
    # Python ignores it, and what it runs would, too.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.execv(argv[0], list(argv))


async def run_over_ssh(
    way: Way, command: Sequence[str], *, given: bytes = b"", connect_limit: int = CONNECT_LIMIT
) -> ProgramEnd:
    """Run a command in a guest by SSH, as :func:`ssh_argv` takes it; how it ended.

    Exit code 255 is ssh's own where it could not get in: ``stderr`` says why.

    :raise HostError: when there is no ssh.
    """
    prepare_known_hosts(way.known_hosts)
    words = ssh_argv(way, command, batch=True, connect_limit=connect_limit)
    process = await asyncio.create_subprocess_exec(
        *words,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        stdout, stderr = await _communicate(process, given)
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    truncated = max(len(stdout), len(stderr)) > LONGEST_OUTPUT
    stdout, stderr = stdout[:LONGEST_OUTPUT], stderr[:LONGEST_OUTPUT]
    code = process.returncode
    if code is not None and code < 0:
        return ProgramEnd(None, -code, stdout, stderr, truncated=truncated)
    return ProgramEnd(code, None, stdout, stderr, truncated=truncated)


async def _communicate(process: asyncio.subprocess.Process, given: bytes) -> tuple[bytes, bytes]:
    """Both outputs; one that is longer than :data:`LONGEST_OUTPUT` ends the process."""
    assert process.stdin
    assert process.stdout
    assert process.stderr

    async def write(stream: asyncio.StreamWriter) -> None:
        # A command need not read its input.
        with suppress(BrokenPipeError, ConnectionResetError):
            stream.write(given)
            await stream.drain()
        stream.close()

    async def read(stream: asyncio.StreamReader) -> bytes:
        content = b""
        while len(content) <= LONGEST_OUTPUT and (piece := await stream.read(_PIECE)):
            content += piece
        if len(content) > LONGEST_OUTPUT:
            with suppress(ProcessLookupError):
                process.kill()
        return content

    _, stdout, stderr = await asyncio.gather(write(process.stdin), read(process.stdout), read(process.stderr))
    await process.wait()
    return stdout, stderr


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise HostError(
            f"the program {name} is missing",
            hint="Debian, Ubuntu: the package openssh-client; Fedora, openSUSE: openssh-clients",
        )
    return found


def _file(path: str) -> str:
    """The name of a file as ssh takes it in its configuration."""
    if "${" in path:
        raise HostError(
            f"ssh can't be given the file {path}: it takes ${{ for the beginning of a variable",
            hint="move it, or set XDG_STATE_HOME to another folder",
        )
    return _quoted(path.replace("%", "%%"))


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
