#!/usr/bin/env python3
"""A QEMU that misbehaves on the launcher's channel, as $FAKE_QEMU says; asked what it knows, $REAL_QEMU answers."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

Answers = dict[str, Any]

GREETING = {"QMP": {"version": {"qemu": {"micro": 0, "minor": 0, "major": 10}, "package": ""}, "capabilities": []}}
STATUS = {"status": "prelaunch", "running": False, "singlestep": False}
NO_SEV = {"error": {"class": "CommandNotFound", "desc": "The command query-sev has not been found"}}


class Channel:
    """The launcher's own monitor."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.buffer = ""

    def send(self, message: Any) -> None:
        """One message."""
        self.raw(json.dumps(message).encode() + b"\r\n")

    def raw(self, data: bytes) -> None:
        """Bytes, whatever they mean."""
        try:
            self.connection.sendall(data)
        except OSError:
            # The launcher has had enough.
            hang()

    def command(self) -> Any:
        """The next command, which has no line's end; as QEMU, it lives on when the launcher hangs up."""
        while True:
            try:
                request, end = json.JSONDecoder().raw_decode(self.buffer)
            except ValueError:
                received = self.connection.recv(65536)
                if not received:
                    hang()
                self.buffer = (self.buffer + received.decode()).lstrip()
            else:
                self.buffer = self.buffer[end:].lstrip()
                return request

    def answer_all(self, special: Answers) -> None:
        """Answer as QEMU does, but for the commands in ``special``: a whole reply, or bytes, or a function."""
        usual: Answers = {"query-status": {"return": STATUS}, "query-sev": NO_SEV}
        while True:
            request = self.command()
            reply = {**usual, **special}.get(request["execute"], {"return": {}})
            if callable(reply):
                reply()
            elif isinstance(reply, bytes):
                self.raw(reply)
            else:
                self.send({**reply, "id": request["id"]} if "id" in request else reply)


def hang() -> None:
    """Live on without a word."""
    while True:
        time.sleep(3600)


def garbage(channel: Channel) -> None:
    """Bytes that are no QMP."""
    channel.raw(b"\x00\xff\xfeSSH-2.0-OpenSSH\r\n" * 3)
    hang()


def not_a_greeting(channel: Channel) -> None:
    """JSON that is no greeting."""
    channel.send(["QMP"])
    hang()


def half_greeting(channel: Channel) -> None:
    """Half a message, then silence."""
    channel.raw(b'{"QMP": {"version"')
    hang()


def half_answer(channel: Channel) -> None:
    """Half an answer, then silence."""
    channel.send(GREETING)
    channel.answer_all({"query-status": b'{"return": {"stat'})


def silent(channel: Channel) -> None:
    """Nothing at all."""
    hang()


def huge_line(channel: Channel) -> None:
    """A message that never ends, larger than any reader wants to keep."""
    channel.raw(b'{"QMP": "')
    while True:
        channel.raw(b"x" * (1 << 20))


def hang_up_and_live(channel: Channel) -> None:
    """The connection ends; the process does not."""
    channel.connection.shutdown(socket.SHUT_RDWR)
    channel.connection.close()
    hang()


def hang_up_mid_answer(channel: Channel) -> None:
    """The process ends in the middle of an answer, with last words."""
    channel.send(GREETING)

    def die() -> None:
        channel.raw(b'{"return": {"stat')
        print("fake: Cannot allocate memory", file=sys.stderr)
        sys.exit(1)

    channel.answer_all({"query-status": die})


def sev_error(channel: Channel) -> None:
    """An error of another class than an unknown command."""
    channel.send(GREETING)
    channel.answer_all({"query-sev": {"error": {"class": "GenericError", "desc": "the firmware is on fire"}}})


def refuses_cont(channel: Channel) -> None:
    """A guest that can't run."""
    channel.send(GREETING)
    channel.answer_all({"cont": {"error": {"class": "GenericError", "desc": "Resetting the VM is required"}}})


def negotiation_error(channel: Channel) -> None:
    """No capabilities."""
    channel.send(GREETING)
    channel.answer_all({"qmp_capabilities": {"error": {"class": "GenericError", "desc": "no"}}})


def endless_events(channel: Channel) -> None:
    """Events, and never an answer."""
    channel.send(GREETING)

    def flood() -> None:
        event = {"event": "RTC_CHANGE", "data": {"offset": 1}, "timestamp": {"seconds": 1, "microseconds": 2}}
        while True:
            channel.send(event)

    channel.answer_all({"query-status": flood})


def wrong_shape(channel: Channel) -> None:
    """Answers of another shape than QEMU's: here, no status."""
    channel.send(GREETING)
    channel.answer_all({"query-status": {"return": []}})


def wrong_sev_shape(channel: Channel) -> None:
    """SEV is on, and nothing is said of it."""
    channel.send(GREETING)
    channel.answer_all({"query-sev": {"return": {"enabled": True}}})


def last_words_and_silence(channel: Channel) -> None:
    """Something on standard error, and then nothing."""
    print("fake: waiting for the moon", file=sys.stderr, flush=True)
    hang()


def last_words_and_garbage(channel: Channel) -> None:
    """A known message on standard error, and no QMP."""
    print("fake: Could not set up host forwarding rule 'tcp::1-:2'", file=sys.stderr, flush=True)
    garbage(channel)


def late(channel: Channel) -> None:
    """Stopped until somebody continues it; then it is QEMU."""
    os.kill(os.getpid(), signal.SIGSTOP)
    channel.connection.detach()
    become_qemu()


def polite(channel: Channel) -> None:
    """As QEMU does."""
    channel.send(GREETING)
    channel.answer_all({})


SCENARIOS: dict[str, Callable[[Channel], None]] = {
    scenario.__name__: scenario
    for scenario in (
        garbage,
        not_a_greeting,
        half_greeting,
        half_answer,
        silent,
        huge_line,
        hang_up_and_live,
        hang_up_mid_answer,
        sev_error,
        refuses_cont,
        negotiation_error,
        endless_events,
        wrong_shape,
        wrong_sev_shape,
        last_words_and_silence,
        last_words_and_garbage,
        late,
        polite,
    )
}


def become_qemu() -> None:
    """The real one, with the same arguments."""
    real = os.environ["REAL_QEMU"]
    os.execv(real, [real, *sys.argv[1:]])


def main() -> None:
    """Play the scenario."""
    if sys.argv[1:3] == ["-machine", "none"]:
        become_qemu()
    option = next(value for value in sys.argv if value.startswith("socket,id=launcher,fd="))
    connection = socket.socket(fileno=int(option.rpartition("=")[2]))
    SCENARIOS[os.environ["FAKE_QEMU"]](Channel(connection))


if __name__ == "__main__":
    main()
