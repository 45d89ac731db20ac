"""Reports of a rehearsed SNP guest, over a socket: the guest itself has no secure processor that it could ask.

A request is the report data, 64 bytes; the answer a report over it with the table of certificates behind it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from uuid import UUID

from sevlaunch.guest.folder import REPORT_SOCKET
from sevlaunch.sevapi.certificate_table import KNOWN, make_table
from sevlaunch.sevapi.report import REPORT_DATA_BYTES

# Seconds for one who has connected: QEMU waits meanwhile.
_PATIENCE = 1.0


class ReportService:
    """Answers those who may open the guest's folder.

    :param report: the report over some data.
    :param chain: VCEK, ASK and ARK in DER.
    """

    def __init__(self, folder: Path, report: Callable[[bytes], bytes], chain: tuple[bytes, bytes, bytes]) -> None:
        names: dict[str, UUID] = {name: guid for guid, name in KNOWN.items()}
        self._table = make_table(dict(zip((names["VCEK"], names["ASK"], names["ARK"]), chain, strict=True)))
        self._report = report
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        # The folder's path may be longer than an address takes.
        fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # There is one where the guest was launched before.
            with suppress(FileNotFoundError):
                os.unlink(REPORT_SOCKET, dir_fd=fd)
            self._listener.bind(f"/proc/self/fd/{fd}/{REPORT_SOCKET}")
        finally:
            os.close(fd)
        self._listener.listen()

    def fileno(self) -> int:
        """The descriptor that is readable when somebody asks."""
        return self._listener.fileno()

    def answer(self) -> None:
        """Answer one request; who asks for something else gets nothing."""
        try:
            connection, _ = self._listener.accept()
        except OSError:
            # Gone again.
            return
        with connection, suppress(OSError):
            connection.settimeout(_PATIENCE)
            data = connection.recv(REPORT_DATA_BYTES + 1)
            if len(data) == REPORT_DATA_BYTES:
                connection.send(self._report(data) + self._table)
