"""The public SSH keys of the user who starts a guest: those of the agent, and those in ``~/.ssh``."""

from __future__ import annotations

import base64
import os
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from sevlaunch.opening import open_regular
from sevlaunch.profile.seed_values import public_key_in

# draft-ietf-sshm-ssh-agent, 3.5 and 5.1: requests and answers are a length and a message, whose first byte is its type.
_REQUEST_IDENTITIES, _IDENTITIES_ANSWER = 11, 12
# As OpenSSH's authfd.c.
_MOST_ANSWER_BYTES = 256 << 10
# An agent answers at once; one that asks its user first does so for signatures.
AGENT_SECONDS = 2.0
_MOST_KEY_FILE_BYTES = 64 << 10
# What a certificate authority signed: authorized_keys takes its key, which has a line of its own.
_CERTIFICATE = "-cert-v01@"


def public_keys() -> list[str]:
    """The user's public keys, in the format of authorized_keys, each once: the agent's, then those of ``~/.ssh/*.pub``.

    An agent that can't be reached, or does not answer within :data:`AGENT_SECONDS`, has none.
    """
    found: dict[str, str] = {}
    for line in (*_agent_keys(), *_key_files()):
        kind, key = public_key_in(line) or ("", "")
        # Options in front of a key are for those who log in to this host.
        if kind and line.startswith(kind) and _CERTIFICATE not in kind:
            found.setdefault(key, line)
    return list(found.values())


def _key_files() -> Iterator[str]:
    try:
        files = sorted((Path.home() / ".ssh").glob("*.pub"))
    except (OSError, RuntimeError):
        # RuntimeError: this user has no home folder.
        return
    for file in files:
        # What can't be read is none of the user's keys.
        with suppress(OSError, ValueError), open_regular(file) as stream:
            for line in stream.read(_MOST_KEY_FILE_BYTES).decode().splitlines():
                yield line.strip()


def _agent_keys() -> list[str]:
    path = os.environ.get("SSH_AUTH_SOCK", "")
    if not path:
        return []
    try:
        return list(_identities(_answer(path)))
    except (OSError, ValueError):
        return []


def _answer(path: str) -> bytes:
    """The agent's answer to the question for its keys."""
    deadline = time.monotonic() + AGENT_SECONDS
    with socket.socket(socket.AF_UNIX) as agent:
        agent.settimeout(AGENT_SECONDS)
        agent.connect(path)
        agent.sendall((1).to_bytes(4, "big") + bytes([_REQUEST_IDENTITIES]))
        size = int.from_bytes(_receive(agent, 4, deadline), "big")
        if size > _MOST_ANSWER_BYTES:
            raise ValueError("the answer is too long")
        return _receive(agent, size, deadline)


def _receive(agent: socket.socket, size: int, deadline: float) -> bytes:
    content = b""
    while len(content) < size:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the agent does not answer")
        agent.settimeout(left)
        piece = agent.recv(size - len(content))
        if not piece:
            raise ValueError("the answer ends early")
        content += piece
    return content


def _identities(answer: bytes) -> Iterator[str]:
    if answer[:1] != bytes([_IDENTITIES_ANSWER]):
        raise ValueError("the agent refused")
    at = 5
    for _ in range(int.from_bytes(answer[1:5], "big")):
        key, at = _string(answer, at)
        comment, at = _string(answer, at)
        kind, _ = _string(key, 0)
        words = (kind.decode("ascii"), base64.b64encode(key).decode(), comment.decode("utf-8", "replace"))
        line = " ".join(words).strip()
        # A comment may hold anything, and counts for nothing.
        yield line if line.isprintable() else " ".join(words[:2])


def _string(content: bytes, at: int) -> tuple[bytes, int]:
    """The string at ``at``, and where it ends: RFC 4251, 5."""
    end = at + 4 + int.from_bytes(content[at : at + 4], "big")
    if end > len(content):
        raise ValueError("the answer ends early")
    return content[at + 4 : end], end
