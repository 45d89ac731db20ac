#!/usr/bin/env python3
"""A QEMU that misbehaves, as the scenarios say; asked what it knows, $REAL_QEMU answers.

$FAKE_QEMU is the scenario of the launcher's monitor, $FAKE_COMMANDS that of the commands' monitor (which is not there
without), and commands that it was given are written to $FAKE_LOG, a line each.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

Answers = dict[str, Any]

GREETING = {"QMP": {"version": {"qemu": {"micro": 0, "minor": 0, "major": 10}, "package": ""}, "capabilities": []}}
STATUS = {"status": "prelaunch", "running": False, "singlestep": False}
SHUTDOWN = {
    "event": "SHUTDOWN",
    "data": {"guest": True, "reason": "guest-shutdown"},
    "timestamp": {"seconds": 1, "microseconds": 2},
}
NO_SEV = {"error": {"class": "CommandNotFound", "desc": "The command query-sev has not been found"}}


class Channel:
    """A client of one of its monitors."""

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
            # The other side has had enough.
            hang()

    def command(self) -> Any:
        """The next command, which has no line's end; as QEMU, it lives on when the launcher hangs up."""
        while True:
            try:
                request, end = json.JSONDecoder().raw_decode(self.buffer)
            except ValueError:
                try:
                    received = self.connection.recv(65536)
                except OSError:
                    hang()
                if not received:
                    hang()
                self.buffer = (self.buffer + received.decode()).lstrip()
            else:
                self.buffer = self.buffer[end:].lstrip()
                note(request["execute"])
                return request

    def answer_all(self, special: Answers) -> None:
        """Answer as QEMU does, but for the commands in ``special``: a whole reply, or bytes, or a function for it."""
        usual: Answers = {"query-status": {"return": STATUS}, "query-sev": NO_SEV, "quit": end_with_success}
        while True:
            request = self.command()
            reply = {**usual, **special}.get(request["execute"], {"return": {}})
            if callable(reply):
                reply = reply()
            if isinstance(reply, bytes):
                self.raw(reply)
            else:
                self.send({**reply, "id": request["id"]} if "id" in request else reply)


def hang() -> NoReturn:
    """Live on without a word."""
    if threading.current_thread() is not threading.main_thread():
        # The next client may come.
        sys.exit()
    while True:
        time.sleep(3600)


def note(command: str) -> None:
    """Write down what was asked."""
    log = os.environ.get("FAKE_LOG")
    if log:
        with open(log, "a") as stream:  # noqa: PTH123 - a fake starts as fast as it can
            stream.write(f"{command}\n")


def on_sigterm(action: Callable[[], None]) -> None:
    """Write down that SIGTERM came, then do ``action``; the main thread alone can ask for that."""

    def come(number: int, frame: object) -> None:
        note("SIGTERM")
        action()

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, come)


def end_with_success() -> None:
    """As QEMU does on quit."""
    os._exit(0)


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


def odd_status(channel: Channel) -> None:
    """The answer to query-status is what $FAKE_ANSWER says."""
    channel.send(GREETING)
    channel.answer_all({"query-status": {"return": json.loads(os.environ["FAKE_ANSWER"])}})


def odd_sev(channel: Channel) -> None:
    """The answer to query-sev is what $FAKE_ANSWER says."""
    channel.send(GREETING)
    channel.answer_all({"query-sev": {"return": json.loads(os.environ["FAKE_ANSWER"])}})


def nested(channel: Channel) -> None:
    """JSON that is deeper than any reader goes."""
    channel.send(GREETING)
    channel.answer_all({"query-status": b'{"return": ' + b"[" * 200_000 + b"]" * 200_000 + b"}\r\n"})


def not_utf_8(channel: Channel) -> None:
    """Bytes that are no text, in the midst of an answer."""
    channel.send(GREETING)
    channel.answer_all({"query-status": b'{"return": {"status": "\xff\xfe", "running": true}}\r\n'})


def deaf(channel: Channel) -> None:
    """As QEMU does, but for quit, which it takes and forgets; SIGTERM ends it."""
    on_sigterm(end_with_success)
    channel.send(GREETING)
    channel.answer_all({"quit": {"return": {}}})


def stubborn(channel: Channel) -> None:
    """As deaf, and SIGTERM is forgotten, too."""
    on_sigterm(lambda: None)
    channel.send(GREETING)
    channel.answer_all({"quit": {"return": {}}})


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


def powers_down(channel: Channel) -> None:
    """As QEMU does with a guest that runs and hears the power button."""
    channel.send(GREETING)

    def off() -> None:
        channel.send(SHUTDOWN)
        end_with_success()

    status = {"return": json.loads(os.environ["FAKE_ANSWER"])}
    channel.answer_all({"query-status": status, "system_powerdown": off})


def stops(channel: Channel) -> None:
    """As QEMU does, but when it is to run, it stops, in the state that $FAKE_ANSWER says."""
    channel.send(GREETING)
    state: dict[str, Any] = {"return": STATUS}

    def stop() -> Any:
        state["return"] = json.loads(os.environ["FAKE_ANSWER"])
        channel.send({"event": "STOP", "data": {}, "timestamp": {"seconds": 1, "microseconds": 2}})
        return {"return": {}}

    channel.answer_all({"cont": stop, "query-status": state})


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
        odd_status,
        odd_sev,
        nested,
        not_utf_8,
        deaf,
        stubborn,
        last_words_and_silence,
        last_words_and_garbage,
        late,
        stops,
        polite,
        powers_down,
    )
}


def become_qemu() -> None:
    """The real one, with the same arguments."""
    real = os.environ["REAL_QEMU"]
    os.execv(real, [real, *sys.argv[1:]])


def serve(path: str, scenario: Callable[[Channel], None]) -> None:
    """Play a scenario for each client of a socket, one at a time, as a monitor of QEMU does."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(1)

    def clients() -> None:
        while True:
            one = threading.Thread(target=scenario, args=(Channel(listener.accept()[0]),), daemon=True)
            one.start()
            one.join()

    threading.Thread(target=clients, daemon=True).start()


def main() -> None:
    """Play the scenarios."""
    if sys.argv[1:3] == ["-machine", "none"]:
        become_qemu()
    if "FAKE_COMMANDS" in os.environ:
        option = next(value for value in sys.argv if value.startswith("socket,id=commands,path="))
        path = option.partition("path=")[2].partition(",server")[0]
        serve(path.replace(",,", ","), SCENARIOS[os.environ["FAKE_COMMANDS"]])
    option = next(value for value in sys.argv if value.startswith("socket,id=launcher,fd="))
    connection = socket.socket(fileno=int(option.rpartition("=")[2]))
    SCENARIOS[os.environ["FAKE_QEMU"]](Channel(connection))


if __name__ == "__main__":
    main()
