"""The answers to one QEMU's ioctls, from its start to its end."""

from __future__ import annotations

import base64
import json
import os
import select
import socket
from contextlib import suppress
from pathlib import Path

from sevlaunch.guest_type import GuestType
from sevlaunch.rehearsal.kvm import Answer, EmulatedSev, EmulatedSevEsInit2, EmulatedSevInit2, Service
from sevlaunch.rehearsal.platform import user_platform
from sevlaunch.rehearsal.processor import SecureProcessor
from sevlaunch.rehearsal.seccomp import Listener, Notification
from sevlaunch.rehearsal.tracing import Tracer

# A report can be passed on without what stands around it.
REPORT_DATA = b"REHEARSAL: memory is NOT encrypted"


class ProcessMemory:
    """Another process' memory, through /proc/PID/mem; a parent may read and write its child's."""

    def __init__(self, pid: int) -> None:
        self._fd = os.open(f"/proc/{pid}/mem", os.O_RDWR | os.O_CLOEXEC)

    def read(self, address: int, size: int) -> bytes:
        """:raise OSError: when it is not all there."""
        content = os.pread(self._fd, size, address)
        if len(content) != size:
            raise OSError("memory ends before")
        return content

    def write(self, address: int, content: bytes) -> None:
        """:raise OSError: when it can't be written."""
        if os.pwrite(self._fd, content, address) != len(content):
            raise OSError("memory ends before")


def emulate(kind: str, *, init2: bool, state_folder: Path, folder: Path) -> EmulatedSev:
    """The emulated KVM and processor for a guest.

    :param kind: sev, sev-es or sev-snp.
    :param init2: offer KVM_SEV_INIT2 to a SEV or SEV-ES guest.
    :param folder: the guest's runtime folder; the attestation of an SNP guest goes there.
    :raise HostError: when the platform's keys can't be read or made.
    """
    platform = user_platform(state_folder)
    processor = SecureProcessor(platform)
    if kind != GuestType.SEV_SNP:
        if not init2:
            return EmulatedSev(processor)
        return EmulatedSevEsInit2(processor) if kind == GuestType.SEV_ES else EmulatedSevInit2(processor)
    from sevlaunch.rehearsal.snp_kvm import EmulatedSnp
    from sevlaunch.rehearsal.snp_processor import SnpGuest

    def attest(guest: SnpGuest) -> None:
        # X.509 takes longer to import than all the rest: only a launch that is finished needs it.
        from sevlaunch.guest.folder import ATTESTATION, GuestFolder
        from sevlaunch.rehearsal.report_service import ReportService
        from sevlaunch.sevapi.report import REPORT_DATA_BYTES

        report = guest.report(REPORT_DATA.ljust(REPORT_DATA_BYTES, b"\0"))
        documents = [base64.b64encode(one).decode() for one in (report, *platform.endorsement)]
        content = {"report": documents[0], "certificates": documents[1:]}
        emulated.service = ReportService(folder, guest.report, platform.endorsement)
        GuestFolder(folder.parent, folder.name).write(ATTESTATION, json.dumps(content).encode())

    emulated = EmulatedSnp(processor, SnpGuest(platform), attest)
    return emulated


class Conversation:
    """Answers until QEMU ends.

    :param channel: where the child sends the filter's listener.
    :param wakeup: a file descriptor that is readable after a child stopped or ended.
    """

    def __init__(
        self, pid: int, emulated: EmulatedSev, channel: socket.socket, tracer: Tracer | None, wakeup: int
    ) -> None:
        self._pid = pid
        self._emulated = emulated
        self._channel = channel
        self._tracer = tracer
        self._wakeup = wakeup
        self._listener: Listener | None = None
        self._memory: ProcessMemory | None = None
        # Before Linux 5.19 a signal can interrupt a caller that we answer at this moment: the kernel then makes the
        # same ioctl again, and what it did must not be done twice.
        self._unheard: tuple[Notification, Answer] | None = None
        self._service: Service | None = None

    def hold(self) -> int:
        """Answer until QEMU ends; its wait status."""
        poll = select.poll()
        for fd in (os.pidfd_open(self._pid), self._channel.fileno(), self._wakeup):
            poll.register(fd, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == self._channel.fileno():
                    poll.unregister(fd)
                    self._receive_listener(poll)
                elif self._listener and fd == self._listener.fd:
                    self._answer(poll)
                elif self._service and fd == self._service.fileno():
                    self._service.answer()
            with suppress(BlockingIOError):
                os.read(self._wakeup, 512)
            status = self._child_status()
            if status is not None:
                return status

    def _child_status(self) -> int | None:
        if self._tracer and not self._tracer.done:
            self._tracer.step()
        if self._tracer and self._tracer.status is not None:
            return self._tracer.status
        if self._tracer and not self._tracer.done:
            return None
        pid, status = os.waitpid(self._pid, os.WNOHANG)
        return status if pid else None

    def _receive_listener(self, poll: select.poll) -> None:
        _, received, _, _ = socket.recv_fds(self._channel, 1, 1)
        if received:
            self._listener = Listener(received[0])
            poll.register(self._listener.fd, select.POLLIN)

    def _answer(self, poll: select.poll) -> None:
        listener = self._listener
        assert listener is not None
        notification = listener.receive()
        if notification is None:
            return
        # Opened at the first ioctl: before exec, it would be the memory of this program.
        self._memory = self._memory or ProcessMemory(self._pid)
        if self._unheard and self._unheard[0].repeats(notification):
            answer = self._unheard[1]
        else:
            fd, request, argument = notification.args[:3]
            answer = self._emulated.ioctl(self._memory, fd & 0xFFFFFFFF, request & 0xFFFFFFFF, argument)
        heard = _send(listener, notification, answer)
        self._unheard = None if heard else (notification, answer)
        if heard and answer.new_fd is not None:
            os.close(answer.new_fd)
        self._watch_service(poll)

    def _watch_service(self, poll: select.poll) -> None:
        service = self._emulated.service
        if service is self._service:
            return
        if self._service:
            poll.unregister(self._service.fileno())
        self._service = service
        if service:
            poll.register(service.fileno(), select.POLLIN)


def _send(listener: Listener, notification: Notification, answer: Answer) -> bool:
    if answer.let_pass:
        return listener.let_pass(notification)
    if answer.new_fd is not None:
        return listener.answer_with_fd(notification, answer.new_fd)
    return listener.answer(notification, -1 if answer.error else answer.value, answer.error)
