"""An interactive terminal on the guest's console, with an escape key."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator

from sevlaunch.errors import SevlaunchError
from sevlaunch.guest.folder import GuestFolder
from sevlaunch.plan.places import CONSOLE_SOCKET

# Ctrl-], as telnet and virsh have it.
ESCAPE = b"\x1d"
# How long QEMU may take to read the keys before the escape key: a guest that does not read its console never does.
HANG_UP_LIMIT = 1.0
CLOSED = "the guest's console was closed"


def connect(folder: GuestFolder) -> socket.socket:
    """A connection to a guest's console.

    :raise SevlaunchError: when nothing listens there.
    :raise HostError: when what is there is not the guest's.
    """
    connection = socket.socket(socket.AF_UNIX)
    try:
        folder.connect(connection, CONSOLE_SOCKET)
    except OSError as error:
        connection.close()
        raise SevlaunchError(
            f"{folder.name} has no console: {error.strerror}",
            hint="the guest has ended, or its profile says console: none",
        ) from error
    except BaseException:
        connection.close()
        raise
    return connection


def attach(folder: GuestFolder, source: int, sink: int, ready: Callable[[], None]) -> str:
    """Copy between the console and a terminal (or pipes) until one side ends; the reason, for people.

    :param source: file descriptor of the user's input.
    :param sink: file descriptor of the user's output.
    :param ready: called once every key counts, the escape key too.
    """
    with connect(folder) as connection, _raw(source):
        ready()
        try:
            return _copy(connection, source, sink)
        except (ConnectionResetError, BrokenPipeError):
            # QEMU was killed before it had read all keys.
            return CLOSED


def _copy(connection: socket.socket, source: int, sink: int) -> str:
    sources = [source, connection.fileno()]
    while True:
        readable = select.select(sources, [], [])[0]
        if connection.fileno() in readable:
            output = connection.recv(65536)
            if not output:
                return CLOSED
            _write_all(sink, output)
        if source in readable:
            keys = os.read(source, 4096)
            if ESCAPE in keys and os.isatty(source):
                connection.sendall(keys.partition(ESCAPE)[0])
                _hang_up(connection, sink)
                return "left by the escape key"
            if keys:
                connection.sendall(keys)
            else:
                # The input has ended; the guest's answer may still come.
                sources.remove(source)


def _hang_up(connection: socket.socket, sink: int) -> None:
    """Leave, and let QEMU read what was typed: it drops that when both directions end at once."""
    connection.shutdown(socket.SHUT_WR)
    end = time.monotonic() + HANG_UP_LIMIT
    while (left := end - time.monotonic()) > 0 and select.select([connection], [], [], left)[0]:
        output = connection.recv(65536)
        if not output:
            return
        _write_all(sink, output)


@contextlib.contextmanager
def _raw(fd: int) -> Iterator[None]:
    if not os.isatty(fd):
        yield
        return
    before = termios.tcgetattr(fd)
    tty.setraw(fd)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
        sys.stdout.write("\r\n")


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
