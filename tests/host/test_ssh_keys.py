"""The keys of the user who starts a guest: what an agent says, and what lies in ~/.ssh."""

from __future__ import annotations

import base64
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sevlaunch.host.ssh_keys import public_keys
from tests import needs


def blob(kind: str, content: bytes) -> bytes:
    """A public key: its type, and something of 32 bytes."""
    return string(kind.encode()) + string(content.ljust(32, b"."))


def string(content: bytes) -> bytes:
    """RFC 4251, 5: a length and so many bytes."""
    return len(content).to_bytes(4, "big") + content


def line(kind: str, content: bytes, comment: str) -> str:
    """A key in the format of authorized_keys."""
    return f"{kind} {base64.b64encode(blob(kind, content)).decode()} {comment}".strip()


def identities(*keys: tuple[bytes, bytes]) -> bytes:
    """An agent's answer."""
    body = b"".join(string(key) + string(comment) for key, comment in keys)
    return string(bytes([12]) + len(keys).to_bytes(4, "big") + body)


@contextmanager
def agent(path: Path, answer: bytes) -> Iterator[None]:
    """An agent that gives one answer, and hangs up."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(64)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join()


@pytest.fixture
def home(base: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder, with an agent's socket to be made in it."""
    monkeypatch.setenv("HOME", str(base))
    monkeypatch.setenv("SSH_AUTH_SOCK", str(base / "agent"))
    (base / ".ssh").mkdir()
    return base


def test_the_agent_s_keys_come_first_and_each_is_there_once(home: Path) -> None:
    one, two = line("ssh-ed25519", b"one", "in the agent"), line("ecdsa-sha2-nistp256", b"two", "in a file")
    (home / ".ssh/b.pub").write_text(f"{two}\n")
    (home / ".ssh/a.pub").write_text(f"{line('ssh-ed25519', b'one', 'in a file')}\n")
    with agent(home / "agent", identities((blob("ssh-ed25519", b"one"), b"in the agent"))):
        assert public_keys() == [one, two]


def test_keys_of_security_keys_count_and_certificates_do_not(home: Path) -> None:
    kinds = ("sk-ssh-ed25519@openssh.com", "ssh-ed25519-cert-v01@openssh.com", "ssh-rsa")
    with agent(home / "agent", identities(*((blob(kind, b"x"), b"") for kind in kinds))):
        assert public_keys() == [line(kinds[0], b"x", ""), line(kinds[2], b"x", "")]


def test_what_a_comment_holds_gets_nowhere(home: Path) -> None:
    with agent(home / "agent", identities((blob("ssh-rsa", b"x"), b"a\nssh-rsa AAAA evil"))):
        assert public_keys() == [line("ssh-rsa", b"x", "")]


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\0\0",
        string(b"\x05"),
        string(b""),
        b"\xff\xff\xff\xff",
        identities((blob("ssh-rsa", b"x"), b""))[:-6],
        string(bytes([12]) + b"\xff\xff\xff\xff"),
        identities((string(b"\xff\xfe"), b"")),
        identities((b"short", b"")),
        identities((string(b"ssh-rsa\n"), b"")),
    ],
)
def test_an_agent_that_answers_something_else_has_no_keys(home: Path, answer: bytes) -> None:
    kept = line("ssh-ed25519", b"mine", "me")
    (home / ".ssh/id.pub").write_text(kept)
    with agent(home / "agent", answer):
        assert public_keys() == [kept]


def test_files_that_hold_no_keys_are_passed_over(home: Path, tmp_path: Path) -> None:
    folder = home / ".ssh"
    mine = line("ssh-ed25519", b"mine", "me")
    (folder / "id.pub").write_text(f'{mine}\n# a remark\ncommand="true" {line("ssh-rsa", b"robot", "")}\n')
    (folder / "a.pub").write_bytes(b"\xff\xfe")
    (folder / "b.pub").write_text("ssh-ed25519 AAAA me\n")
    (folder / "c.pub").mkdir()
    (folder / "d.pub").symlink_to("/dev/zero")
    (folder / "id").write_text(f"{line('ssh-rsa', b'other', '')}\n")
    assert public_keys() == [mine]


def test_nobody_without_keys_has_some(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert public_keys() == []
    monkeypatch.delenv("SSH_AUTH_SOCK")
    monkeypatch.setenv("HOME", str(home / "nowhere"))
    assert public_keys() == []


def test_the_agent_of_openssh_is_understood(home: Path) -> None:
    keygen, program = needs.program("ssh-keygen", "openssh-client"), needs.program("ssh-agent", "openssh-client")
    add = needs.program("ssh-add", "openssh-client")
    subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-C", "a key", "-f", home / "key"], check=True)
    process = subprocess.Popen([program, "-D", "-a", str(home / "agent")], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        subprocess.run([add, "-q", home / "key"], check=True)
        assert public_keys() == [(home / "key.pub").read_text().strip()]
    finally:
        process.terminate()
        process.communicate()
