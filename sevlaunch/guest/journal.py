"""Lines of a guest's console for systemd's journal.

Loaded by :mod:`sevlaunch.guest.keeper` where a profile asks for it; it takes no more than Python's standard library and
:mod:`sevlaunch.text`.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from collections import deque

from sevlaunch.plan.places import JOURNAL_SOCKET
from sevlaunch.text import VisibleStream

# systemd's journald.conf(5), LineMax=: longer ones become several.
_LONGEST = 48 << 10
_PIECE = 1 << 16
# Seconds that one turn takes: a guest that floods must not keep its log from being cut.
_TURN = 0.02
# Seconds that the journal has for the rest, once QEMU has ended; between two attempts.
_LAST_CHANCE, _AGAIN = 2.0, 0.02
# syslog(3): LOG_INFO
_PRIORITY = 6


class Journal:
    """Passes on one log. The journal is never waited for while the guest runs.

    :param name: the guest's.
    """

    def __init__(self, name: str, log: int) -> None:
        self._fields = f"PRIORITY={_PRIORITY}\nSYSLOG_IDENTIFIER=sevlaunch-{name}\nSEVLAUNCH_GUEST={name}\n".encode()
        self._log = log
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self._shown = VisibleStream()
        self._position = 0
        self._line = ""
        self._entries: deque[str] = deque()

    def pass_on(self, begin: int) -> bool:
        """Pass on some of what came since the last time; whether that is all.

        :param begin: what is before it in the log has been taken out.
        """
        end = time.monotonic() + _TURN
        while self._send(end):
            if self._position < begin:
                self._entries.append(
                    f"sevlaunch: {begin - self._position} bytes of the console came too fast for the journal"
                )
                self._position, self._line = begin, ""
                continue
            piece = os.pread(self._log, _PIECE, self._position)
            if not piece:
                return True
            self._position += len(piece)
            self._add(self._shown.feed(piece))
        return False

    def finish(self, begin: int) -> None:
        """Pass on all that is left, within a limit; the guest has ended."""
        end = time.monotonic() + _LAST_CHANCE
        # A socket that is not connected does not tell when it takes more.
        while not self.pass_on(begin):
            if time.monotonic() > end:
                return
            time.sleep(_AGAIN)
        self._add(self._shown.feed(b"", final=True) + "\n")
        self._send(end)

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def _add(self, text: str) -> None:
        *lines, self._line = (self._line + text).split("\n")
        while len(self._line) > _LONGEST:
            lines.append(self._line[:_LONGEST])
            self._line = self._line[_LONGEST:]
        # The journal keeps no empty ones.
        self._entries.extend(line for line in lines if line)

    def _send(self, end: float) -> bool:
        """Send the entries until ``end``; whether the journal took them all."""
        while self._entries:
            if time.monotonic() > end:
                return False
            message = self._entries[0].encode("utf-8", "backslashreplace")
            entry = self._fields + b"MESSAGE\n" + struct.pack("<Q", len(message)) + message + b"\n"
            try:
                self._socket.sendto(entry, JOURNAL_SOCKET)
            except OSError as error:
                # It is busy, or is being started anew; what it will never take is in the log.
                if error.errno != errno.EMSGSIZE:
                    return False
            self._entries.popleft()
        return True
