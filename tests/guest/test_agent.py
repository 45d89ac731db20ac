"""The guest agent's channel: what an agent says that is none, or means harm."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sevlaunch.errors import QmpError, UsageError
from sevlaunch.guest.agent import Agent
from sevlaunch.guest.folder import GuestFolder

HARMFUL = [
    b'{"return": "' + b"x" * (1 << 20) + b'"}\n',
    b"x" * (1 << 20),
    b"[" * 100_000 + b"\n",
    b"[]\n",
    b"null\n",
    b'"return"\n',
    b"\xff\xfe\n",
    b'{"error": {"class": "GenericError", "desc": "\x1b[31m"}}\n',
    b"",
]


@asynccontextmanager
async def answering(base: Path, answer: bytes) -> AsyncIterator[Agent]:
    """An agent that answers anything with the same."""
    folder = GuestFolder(base / "run", "g")
    (folder.path / "qemu").mkdir(parents=True, mode=0o700)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder.path / "qemu/agent.sock"))
        listener.listen()

        def talk() -> None:
            with listener.accept()[0] as connection:
                connection.recv(4096)
                try:
                    connection.sendall(answer)
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(4096):
                        continue
                except OSError:
                    # The other side has had enough.
                    return

        thread = threading.Thread(target=talk)
        thread.start()
        try:
            yield Agent(folder)
        finally:
            await asyncio.to_thread(thread.join)


@pytest.mark.parametrize("answer", HARMFUL, ids=lambda answer: repr(answer[:30]))
async def test_what_is_no_answer_is_a_failure_of_the_agent(answer: bytes, base: Path) -> None:
    async with answering(base, answer) as agent:
        with pytest.raises(QmpError, match="the guest agent of g answered") as refused:
            await agent.ping()
        assert len(str(refused.value)) < 1000
        assert "\x1b" not in str(refused.value)


async def test_an_answer_is_one(base: Path) -> None:
    async with answering(base, b'{"return": {}}\r\n') as agent:
        await agent.ping()


async def test_without_a_channel_it_says_so(base: Path) -> None:
    folder = GuestFolder(base / "run", "g")
    (folder.path / "qemu").mkdir(parents=True, mode=0o700)
    with pytest.raises(UsageError, match="no channel for the guest agent: No such file or directory"):
        await Agent(folder).ping()
    (folder.path / "qemu/agent.sock").symlink_to("/run/systemd/private")
    with pytest.raises(Exception, match="is no socket"):
        await Agent(folder).ping()
