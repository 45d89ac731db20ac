"""KVM's SEV ioctls -> commands of the emulated processor. Layouts: linux/kvm.h, linux/psp-sev.h.

QEMU is not trusted: every pointer and length is its own, and what can't be read or written is EFAULT, as in the kernel.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple, Protocol

from sevlaunch.rehearsal.platform import API_MAJOR, API_MINOR, BUILD_ID
from sevlaunch.rehearsal.processor import REPORT_BYTES, SecureProcessor
from sevlaunch.rehearsal.requests import (
    KVM_CHECK_EXTENSION,
    KVM_GET_DEVICE_ATTR,
    KVM_HAS_DEVICE_ATTR,
    KVM_MEMORY_ENCRYPT_OP,
    KVM_SET_CPUID2,
    SEV_ISSUE_CMD,
)
from sevlaunch.sevapi.status import FirmwareError, Status

PAGE_BYTES = 4096

# linux/psp-sev.h, struct sev_issue_cmd (packed): cmd, data, error.
_ISSUE = struct.Struct("<IQI")
# struct sev_user_data_status (packed): api_major, api_minor, state, flags, build, guest_count.
_PLATFORM_STATUS = struct.Struct("<BBBIBI")
_STATUS_ES = 0x100
_STATE_WORKING = 2
# struct sev_user_data_pdh_cert_export (packed): pdh address and length, chain address and length.
_PDH_EXPORT = struct.Struct("<QIQI")
# struct sev_user_data_get_id2 (packed): address, length.
_GET_ID2 = struct.Struct("<QI")

# linux/kvm.h, struct kvm_sev_cmd: id, padding, data, error, sev_fd.
_SEV_COMMAND = struct.Struct("<IIQII")
_ERROR = struct.Struct("<I")
_ERROR_OFFSET = 16
_INIT, _ES_INIT, INIT2 = 0, 1, 22
_INITIALISING = (_INIT, _ES_INIT, INIT2)
# struct kvm_sev_init: vmsa_features, then flags and the version of the GHCB protocol, which are not measured.
_INIT2 = struct.Struct("<Q40x")
# struct kvm_sev_launch_start: handle, policy, dh_uaddr, dh_len, padding, session_uaddr, session_len, padding.
_LAUNCH_START = struct.Struct("<IIQIIQII")
# struct kvm_sev_launch_update_data and kvm_sev_launch_measure: uaddr, len, padding.
_BUFFER = struct.Struct("<QII")
# struct kvm_sev_launch_secret: header, guest memory, ciphertext, each uaddr, len, padding.
_LAUNCH_SECRET = struct.Struct("<QIIQIIQII")
# struct kvm_sev_guest_status: handle, policy, state.
_GUEST_STATUS = struct.Struct("<III")
# struct kvm_sev_attestation_report: mnonce, uaddr, len, padding.
_REPORT = struct.Struct("<16sQII")

# struct kvm_cpuid2: nent, padding; struct kvm_cpuid_entry2: function, index, flags, eax, ebx, ecx, edx, padding.
_CPUID_HEAD = struct.Struct("<II")
_CPUID_ENTRY = struct.Struct("<7I12x")
_MAX_CPUID_ENTRIES = 256
_ENCRYPTION_LEAF = 0x8000001F

# KVM_CAP_VM_TYPES and KVM_CAP_READONLY_MEM, which Linux denies a VM whose registers are encrypted from the start:
# kvm_arch_has_readonly_mem() in its arch/x86/include/asm/kvm_host.h.
_VM_TYPES = 235
READONLY_MEM = 81

# struct kvm_device_attr: flags, group, attr, addr; the group KVM_X86_GRP_SEV has KVM_X86_SEV_VMSA_FEATURES.
_DEVICE_ATTRIBUTE = struct.Struct("<IIQQ")
_VMSA_FEATURES = (1, 0)
# SEV_FEATURES that KVM lets QEMU ask for: debug swap and secure TSC.
_SUPPORTED_FEATURES = struct.pack("<Q", 1 << 5 | 1 << 9)

MEASUREMENT_BYTES = 48
MAX_OWNER_BLOB = 16384
MAX_REGION = 1 << 32
PIECE = 1 << 20


class Memory(Protocol):
    """QEMU's memory."""

    def read(self, address: int, size: int) -> bytes:
        """:raise OSError: when it is not all there."""

    def write(self, address: int, content: bytes) -> None:
        """:raise OSError: when it can't be written."""


class Answer(NamedTuple):
    """What an ioctl returns.

    ``value``, or -1 with the errno ``error``; ``let_pass``: what the kernel says; ``new_fd``: a copy of that file
    descriptor, opened in the caller.
    """

    value: int = 0
    error: int = 0
    let_pass: bool = False
    new_fd: int | None = None


OK = Answer()
PASS = Answer(let_pass=True)


class Service(Protocol):
    """What the emulated processor does for others than QEMU."""

    def fileno(self) -> int:
        """The descriptor that is readable when somebody asks."""

    def answer(self) -> None:
        """Answer one request."""


class EmulatedSev:
    """One QEMU's view of SEV and SEV-ES on a kernel that has KVM_SEV_INIT and KVM_SEV_ES_INIT.

    ``extensions``: what KVM_CHECK_EXTENSION answers. ``service``: what it does for others than QEMU, from a moment on.
    """

    # KVM_CAP_VM_TYPES: the default one only, also where this KVM has SEV and would make an encrypted VM.
    extensions: Mapping[int, int] = MappingProxyType({_VM_TYPES: 1})

    def __init__(self, processor: SecureProcessor) -> None:
        self._processor = processor
        self._handle = 0
        self._initialised = False
        self._init2 = False
        self._vmsa_features = 0
        self._firmware = b""
        self.service: Service | None = None
        self._vcpus: set[int] = set()
        self._cpu_signature = 0

    def ioctl(self, memory: Memory, fd: int, request: int, argument: int) -> Answer:
        """The answer to one of :mod:`sevlaunch.rehearsal.requests`."""
        try:
            return self._answer(memory, fd, request, argument)
        except (OSError, OverflowError):
            return Answer(error=errno.EFAULT)

    def _answer(self, memory: Memory, fd: int, request: int, argument: int) -> Answer:
        if request == SEV_ISSUE_CMD:
            return self._platform_command(memory, argument)
        if request == KVM_MEMORY_ENCRYPT_OP:
            return self._guest_command(memory, argument) if argument else OK
        if request == KVM_SET_CPUID2:
            return self._set_cpuid(memory, fd, argument)
        if request == KVM_CHECK_EXTENSION:
            return Answer(self.extensions[argument]) if argument in self.extensions else PASS
        if request in (KVM_GET_DEVICE_ATTR, KVM_HAS_DEVICE_ATTR):
            return _device_attribute(memory, request, argument)
        return OK if self._initialised else Answer(error=errno.ENOTTY)

    def _platform_command(self, memory: Memory, argument: int) -> Answer:
        command, data, _ = _ISSUE.unpack(memory.read(argument, _ISSUE.size))
        handlers: dict[int, Callable[[Memory, int], None]] = {
            1: self._platform_status,
            5: self._pdh_cert_export,
            8: self._get_id2,
        }
        error_at = argument + _ISSUE.size - _ERROR.size
        if command not in handlers:
            return Answer(error=errno.EINVAL)
        return self._answered(memory, error_at, lambda: handlers[command](memory, data))

    def _guest_command(self, memory: Memory, argument: int) -> Answer:
        command, _, data, _, _ = _SEV_COMMAND.unpack(memory.read(argument, _SEV_COMMAND.size))
        if command in _INITIALISING:
            return self._initialise(memory, command, data)
        handler = self._handlers().get(command)
        if handler is None:
            return Answer(error=errno.EINVAL)
        if not self._initialised:
            return Answer(error=errno.ENOTTY)
        return self._answered(memory, argument + _ERROR_OFFSET, lambda: handler(memory, data))

    def _handlers(self) -> dict[int, Callable[[Memory, int], None]]:
        return {
            2: self._launch_start,
            3: self._launch_update_data,
            4: self._launch_update_vmsa,
            5: self._launch_secret,
            6: self._launch_measure,
            7: self._launch_finish,
            16: self._guest_status,
            20: self._attestation_report,
        }

    def _initialise(self, memory: Memory, command: int, data: int) -> Answer:
        if self._initialised:
            return Answer(error=errno.EINVAL)
        if command == _ES_INIT and not self._processor.es_enabled:
            return Answer(error=errno.ENOTTY)
        if command == INIT2:
            (self._vmsa_features,) = _INIT2.unpack(memory.read(data, _INIT2.size))
        self._initialised, self._init2 = True, command == INIT2
        return OK

    def _answered(self, memory: Memory, error_at: int, command: Callable[[], None]) -> Answer:
        status = Status.SUCCESS
        try:
            command()
        except FirmwareError as error:
            status = error.status
        memory.write(error_at, _ERROR.pack(status))
        return OK if status is Status.SUCCESS else Answer(error=errno.EIO)

    def _platform_status(self, memory: Memory, data: int) -> None:
        flags = _STATUS_ES if self._processor.es_enabled else 0
        count = self._processor.guest_count
        memory.write(data, _PLATFORM_STATUS.pack(API_MAJOR, API_MINOR, _STATE_WORKING, flags, BUILD_ID, count))

    def _pdh_cert_export(self, memory: Memory, data: int) -> None:
        pdh_at, pdh_length, chain_at, chain_length = _PDH_EXPORT.unpack(memory.read(data, _PDH_EXPORT.size))
        pdh, chain = self._processor.pdh_cert_export()
        memory.write(data, _PDH_EXPORT.pack(pdh_at, len(pdh), chain_at, len(chain)))
        if pdh_length < len(pdh) or chain_length < len(chain):
            raise FirmwareError(Status.INVALID_LENGTH)
        memory.write(pdh_at, pdh)
        memory.write(chain_at, chain)

    def _get_id2(self, memory: Memory, data: int) -> None:
        address, length = _GET_ID2.unpack(memory.read(data, _GET_ID2.size))
        chip_id = self._processor.chip_id()
        memory.write(data, _GET_ID2.pack(address, len(chip_id)))
        if length < len(chip_id):
            raise FirmwareError(Status.INVALID_LENGTH)
        memory.write(address, chip_id)

    def _launch_start(self, memory: Memory, data: int) -> None:
        handle, policy, dh_at, dh_length, _, session_at, session_length, _ = _LAUNCH_START.unpack(
            memory.read(data, _LAUNCH_START.size)
        )
        dh_cert = _owner_blob(memory, dh_at, dh_length)
        session = _owner_blob(memory, session_at, session_length)
        if self._handle:
            raise FirmwareError(Status.INVALID_GUEST_STATE)
        self._handle = self._processor.launch_start(policy, dh_cert, session, handle)
        memory.write(data, _ERROR.pack(self._handle))

    def _launch_update_data(self, memory: Memory, data: int) -> None:
        address, length, _ = _BUFFER.unpack(memory.read(data, _BUFFER.size))
        if length % 16:
            raise FirmwareError(Status.INVALID_LENGTH)
        self._processor.launch_update_data(self._handle, _pieces(memory, address, length))
        if not self._firmware and length >= PAGE_BYTES:
            # The first region is the firmware: its table tells where the other vCPUs start.
            self._firmware = memory.read(address + length - min(length, 1 << 16), min(length, 1 << 16))

    def _launch_update_vmsa(self, memory: Memory, data: int) -> None:
        self._processor.launch_update_vmsa(self._handle, self._vmsa_pages(self._vmsa_features))

    def _vmsa_pages(self, sev_features: int) -> Iterator[bytes]:
        from sevlaunch.sevapi.ovmf import es_reset_eip
        from sevlaunch.sevapi.vmsa import vmsa_pages

        try:
            ap_eip = es_reset_eip(self._firmware)
        except ValueError as error:
            raise FirmwareError(Status.INVALID_PARAM) from error
        return vmsa_pages(
            len(self._vcpus),
            ap_eip=ap_eip,
            cpu_signature=self._cpu_signature,
            init2=self._init2,
            sev_features=sev_features,
        )

    def _launch_secret(self, memory: Memory, data: int) -> None:
        from sevlaunch.sevapi.secret import HEADER_BYTES

        header_at, header_length, _, guest_at, guest_length, _, text_at, text_length, _ = _LAUNCH_SECRET.unpack(
            memory.read(data, _LAUNCH_SECRET.size)
        )
        if header_length != HEADER_BYTES or text_length > MAX_OWNER_BLOB:
            raise FirmwareError(Status.INVALID_LENGTH)
        header, ciphertext = memory.read(header_at, header_length), memory.read(text_at, text_length)
        plaintext = self._processor.launch_secret(self._handle, header, ciphertext, guest_length)
        memory.write(guest_at, plaintext)

    def _launch_measure(self, memory: Memory, data: int) -> None:
        address, length, _ = _BUFFER.unpack(memory.read(data, _BUFFER.size))
        memory.write(data, _BUFFER.pack(address, MEASUREMENT_BYTES, 0))
        if length < MEASUREMENT_BYTES:
            raise FirmwareError(Status.INVALID_LENGTH)
        memory.write(address, self._processor.launch_measure(self._handle))

    def _launch_finish(self, memory: Memory, data: int) -> None:
        self._processor.launch_finish(self._handle)

    def _guest_status(self, memory: Memory, data: int) -> None:
        policy, state = self._processor.guest_status(self._handle)
        memory.write(data, _GUEST_STATUS.pack(self._handle, policy, state))

    def _attestation_report(self, memory: Memory, data: int) -> None:
        mnonce, address, length, _ = _REPORT.unpack(memory.read(data, _REPORT.size))
        memory.write(data, _REPORT.pack(mnonce, address, REPORT_BYTES, 0))
        if length < REPORT_BYTES:
            raise FirmwareError(Status.INVALID_LENGTH)
        memory.write(address, self._processor.attestation_report(self._handle, mnonce))

    def _set_cpuid(self, memory: Memory, fd: int, argument: int) -> Answer:
        """Take the encryption leaf out of the guest's CPUID, so that it boots as an ordinary guest."""
        count, _ = _CPUID_HEAD.unpack(memory.read(argument, _CPUID_HEAD.size))
        for index in range(min(count, _MAX_CPUID_ENTRIES)):
            at = argument + _CPUID_HEAD.size + index * _CPUID_ENTRY.size
            function, number, flags, eax, *_ = _CPUID_ENTRY.unpack(memory.read(at, _CPUID_ENTRY.size))
            if function == 1:
                self._cpu_signature = eax
            if function == _ENCRYPTION_LEAF:
                memory.write(at, _CPUID_ENTRY.pack(function, number, flags, 0, 0, 0, 0))
        self._vcpus.add(fd)
        return PASS


class EmulatedSevInit2(EmulatedSev):
    """The same on a kernel that has KVM_SEV_INIT2 (Linux 6.10) and the VM types that go with it."""

    # The default one, KVM_X86_SEV_VM and KVM_X86_SEV_ES_VM.
    extensions: Mapping[int, int] = MappingProxyType({_VM_TYPES: 1 << 0 | 1 << 2 | 1 << 3})


class EmulatedSevEsInit2(EmulatedSevInit2):
    """The same for a guest of KVM_X86_SEV_ES_VM."""

    extensions = MappingProxyType({**EmulatedSevInit2.extensions, READONLY_MEM: 0})


def _device_attribute(memory: Memory, request: int, argument: int) -> Answer:
    _, group, attribute, address = _DEVICE_ATTRIBUTE.unpack(memory.read(argument, _DEVICE_ATTRIBUTE.size))
    if (group, attribute) != _VMSA_FEATURES:
        return PASS
    if request == KVM_GET_DEVICE_ATTR:
        memory.write(address, _SUPPORTED_FEATURES)
    return OK


def _owner_blob(memory: Memory, address: int, length: int) -> bytes:
    if length > MAX_OWNER_BLOB:
        raise FirmwareError(Status.INVALID_LENGTH)
    return memory.read(address, length) if address and length else b""


def _pieces(memory: Memory, address: int, length: int) -> Iterator[bytes]:
    for start in range(0, length, PIECE):
        yield memory.read(address + start, min(PIECE, length - start))
