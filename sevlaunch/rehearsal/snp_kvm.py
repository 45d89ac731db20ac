"""KVM's ioctls for SEV-SNP guests -> commands of the emulated processor. Layouts: linux/kvm.h.

Guest memory stays ordinary shared memory: what belongs to private memory is answered and has no effect.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable
from types import MappingProxyType

from sevlaunch.profile.policy import SNP_RESERVED_ONE
from sevlaunch.rehearsal.kvm import (
    INIT2,
    MAX_REGION,
    OK,
    PASS,
    PIECE,
    READONLY_MEM,
    Answer,
    EmulatedSev,
    Memory,
)
from sevlaunch.rehearsal.processor import SecureProcessor
from sevlaunch.rehearsal.requests import (
    KVM_CREATE_GUEST_MEMFD,
    KVM_ENABLE_CAP,
    KVM_SET_MEMORY_ATTRIBUTES,
    KVM_SET_USER_MEMORY_REGION2,
)
from sevlaunch.rehearsal.snp_processor import HOST_DATA_BYTES, CpuidRefused, SnpGuest, SnpState
from sevlaunch.sevapi.snp import PAGE, VMSA_GPA, PageType
from sevlaunch.sevapi.status import FirmwareError, Status

# KVM_CAP_EXIT_HYPERCALL with KVM_HC_MAP_GPA_RANGE, USER_MEMORY2, MEMORY_ATTRIBUTES with PRIVATE, GUEST_MEMFD, VM_TYPES
# with all of SEV's.
_EXIT_HYPERCALL = 201
_EXTENSIONS = MappingProxyType({_EXIT_HYPERCALL: 1 << 12, 231: 1, 233: 1 << 3, 234: 1, 235: 0x1F, READONLY_MEM: 0})

# struct kvm_enable_cap begins with cap.
_CAP = struct.Struct("<I")
# struct kvm_create_guest_memfd begins with size, flags.
_MEMFD = struct.Struct("<QQ")
# struct kvm_userspace_memory_region2: slot, flags, guest_phys_addr, memory_size, userspace_addr, then guest_memfd's
# offset and file descriptor.
_REGION = struct.Struct("<IIQQQQI")
_MEM_GUEST_MEMFD = 4

# struct kvm_sev_snp_launch_start: policy, gosvw, flags, reserved.
_START = struct.Struct("<Q16sH38x")
# struct kvm_sev_snp_launch_update: gfn_start, uaddr, len, type, reserved, flags, reserved.
_UPDATE = struct.Struct("<QQQBxH36x")
# What the kernel has done is written back into the first three.
_PROGRESS = struct.Struct("<QQQ")
# struct kvm_sev_snp_launch_finish: id_block_uaddr, id_auth_uaddr, id_block_en, auth_key_en, vcek_disabled, host_data,
# reserved, flags, reserved.
_FINISH = struct.Struct(f"<QQBBB{HOST_DATA_BYTES}s3xH32x")

# The firmware ends where 32 bits end; its table is in the last pages.
_FIRMWARE_END = 1 << 32
_FIRMWARE_TAIL = 1 << 16
# Bit 0 of SEV_FEATURES: KVM sets it for every SNP guest.
_SNP_ACTIVE = 1


class _Refused(OSError):
    """What the kernel refuses by itself, before the processor is asked."""


class EmulatedSnp(EmulatedSev):
    """One QEMU's view of SEV-SNP.

    :param launched: told when the launch is finished.
    """

    extensions = _EXTENSIONS

    def __init__(self, processor: SecureProcessor, guest: SnpGuest, launched: Callable[[SnpGuest], None]) -> None:
        super().__init__(processor)
        self._guest = guest
        self._launched = launched

    def _answer(self, memory: Memory, fd: int, request: int, argument: int) -> Answer:
        if request == KVM_ENABLE_CAP:
            (capability,) = _CAP.unpack(memory.read(argument, _CAP.size))
            return OK if capability == _EXIT_HYPERCALL else PASS
        if request == KVM_CREATE_GUEST_MEMFD:
            return _create_memfd(memory, argument)
        if request == KVM_SET_USER_MEMORY_REGION2:
            return _without_memfd(memory, argument)
        if request == KVM_SET_MEMORY_ATTRIBUTES:
            return OK
        try:
            return super()._answer(memory, fd, request, argument)
        except _Refused:
            return Answer(error=errno.EINVAL)

    def _handlers(self) -> dict[int, Callable[[Memory, int], None]]:
        return {100: self._start, 101: self._update, 102: self._finish}

    def _initialise(self, memory: Memory, command: int, data: int) -> Answer:
        return super()._initialise(memory, command, data) if command == INIT2 else Answer(error=errno.EINVAL)

    def _start(self, memory: Memory, data: int) -> None:
        policy, gosvw, flags = _START.unpack(memory.read(data, _START.size))
        if flags or not policy & SNP_RESERVED_ONE:
            raise _Refused
        self._guest.launch_start(policy, gosvw)

    def _update(self, memory: Memory, data: int) -> None:
        gfn, address, length, page_type, flags = _UPDATE.unpack(memory.read(data, _UPDATE.size))
        # The VMSAs are the kernel's own: it adds them at the end.
        if flags or length % PAGE or length > MAX_REGION or page_type == PageType.VMSA:
            raise _Refused
        if self._guest.state is not SnpState.LAUNCH:
            raise FirmwareError(Status.INVALID_GUEST_STATE)
        for start in range(0, length, PIECE):
            piece = memory.read(address + start, min(PIECE, length - start))
            for offset in range(start, start + len(piece), PAGE):
                page = piece[offset - start : offset - start + PAGE]
                self._update_page(memory, page_type, gfn * PAGE + offset, address + offset, page)
        if page_type == PageType.NORMAL and gfn * PAGE + length == _FIRMWARE_END:
            tail = min(length, _FIRMWARE_TAIL)
            self._firmware = memory.read(address + length - tail, tail)
        memory.write(data, _PROGRESS.pack(gfn + length // PAGE, address + length, 0))

    def _update_page(self, memory: Memory, page_type: int, gpa: int, address: int, page: bytes) -> None:
        try:
            found = self._guest.launch_update(page_type, gpa, page)
        except CpuidRefused as refused:
            memory.write(address, refused.page)
            raise
        if found != page:
            memory.write(address, found)

    def _finish(self, memory: Memory, data: int) -> None:
        block_at, authentication_at, with_block, author_key, vcek_disabled, host_data, flags = _FINISH.unpack(
            memory.read(data, _FINISH.size)
        )
        if flags:
            raise _Refused
        from sevlaunch.sevapi.id_block import AUTHENTICATION_BYTES, BLOCK_BYTES

        block = memory.read(block_at, BLOCK_BYTES) if with_block else b""
        authentication = memory.read(authentication_at, AUTHENTICATION_BYTES) if with_block else b""
        if vcek_disabled:
            # There is no VLEK to sign with instead.
            raise FirmwareError(Status.INVALID_KEY)
        if self._guest.state is SnpState.LAUNCH:
            for page in self._vmsa_pages(self._vmsa_features | _SNP_ACTIVE):
                self._guest.launch_update(PageType.VMSA, VMSA_GPA, page)
        self._guest.launch_finish(
            id_block=block, id_auth=authentication, author_key=bool(author_key), host_data=host_data
        )
        self._launched(self._guest)


def _create_memfd(memory: Memory, argument: int) -> Answer:
    size, flags = _MEMFD.unpack(memory.read(argument, _MEMFD.size))
    if flags or size % PAGE or not size:
        return Answer(error=errno.EINVAL)
    # Nobody writes into it: it has a size, and takes no memory.
    fd = os.memfd_create("rehearsal", os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, size)
    except (OSError, OverflowError):
        os.close(fd)
        return Answer(error=errno.EINVAL)
    return Answer(new_fd=fd)


def _without_memfd(memory: Memory, argument: int) -> Answer:
    slot, flags, *where, _, _ = _REGION.unpack(memory.read(argument, _REGION.size))
    if flags & _MEM_GUEST_MEMFD:
        memory.write(argument, _REGION.pack(slot, flags & ~_MEM_GUEST_MEMFD, *where, 0, 0))
    return PASS
