"""Where the facts of a machine come from: a root folder, CPUID, ioctls. Tests put recordings in their place."""

from __future__ import annotations

import fcntl
import os
import resource
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from sevlaunch.host.cpuid import Reader

# linux/psp-sev.h: _IOWR('S', 0x0, struct sev_issue_cmd), packed: cmd, data, error.
_SEV_ISSUE_CMD = 0xC0105300
_ISSUE = struct.Struct("<IQI")
# linux/kvm.h: _IOW(KVMIO, 0xe2, struct kvm_device_attr): flags, group, attr, addr.
_KVM_GET_DEVICE_ATTR = 0x4018AEE2
_ATTRIBUTE = struct.Struct("<IIQQ")
# linux/io_uring.h: the system call's number on x86-64, bytes of struct io_uring_params.
_IO_URING_SETUP, _IO_URING_PARAMS = 425, 120


def read_cpuid() -> tuple[Reader, str]:
    """As :func:`sevlaunch.host.cpuid.reader`, which takes ctypes: an ordinary guest does without either."""
    from sevlaunch.host.cpuid import reader

    return reader()


def sev_command(device: Path, command: int, size: int) -> bytes:
    """Ask the secure processor something that changes nothing; ``size`` bytes of answer.

    :raise OSError: when the device can't be opened, or the command fails.
    """
    import ctypes

    answer = ctypes.create_string_buffer(size)
    request = bytearray(_ISSUE.pack(command, ctypes.addressof(answer), 0))
    fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _SEV_ISSUE_CMD, request)
    except OSError as error:
        status = _ISSUE.unpack(request)[2]
        firmware = f", the secure processor answered {status:#x}" if status else ""
        raise OSError(error.errno, f"{error.strerror}{firmware}") from error
    finally:
        os.close(fd)
    return answer.raw


def kvm_ioctl(device: Path, request: int, argument: int) -> int:
    """Ask KVM something on /dev/kvm itself.

    :raise OSError: when it can't be opened, or does not answer.
    """
    fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    try:
        return fcntl.ioctl(fd, request, argument)
    finally:
        os.close(fd)


def kvm_attribute(device: Path, group: int, attribute: int) -> int:
    """The 64 bits of an attribute of KVM itself.

    :raise OSError: when the device can't be opened, or KVM does not have the attribute (ENXIO, ENOTTY).
    """
    import ctypes

    answer = ctypes.c_uint64()
    request = _ATTRIBUTE.pack(0, group, attribute, ctypes.addressof(answer))
    fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _KVM_GET_DEVICE_ATTR, request)
    finally:
        os.close(fd)
    return answer.value


def io_uring_setup() -> None:
    """Make an io_uring of one entry, and close it again.

    :raise OSError: when the kernel gives this process none.
    """
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(_IO_URING_SETUP, 1, ctypes.create_string_buffer(_IO_URING_PARAMS))
    if fd < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    os.close(fd)


class System(Struct, frozen=True):
    """One machine: this one, or a recorded one.

    ``sev_command`` takes (device, command, size of the answer), ``kvm_ioctl`` (device, request, argument),
    ``kvm_attribute`` (device, group, attribute).
    """

    root: Path = Path("/")
    cpuid: Callable[[], tuple[Reader, str]] = read_cpuid
    sev_command: Callable[[Path, int, int], bytes] = sev_command
    kvm_ioctl: Callable[[Path, int, int], int] = kvm_ioctl
    kvm_attribute: Callable[[Path, int, int], int] = kvm_attribute
    io_uring_setup: Callable[[], None] = io_uring_setup
    limits: Callable[[int], tuple[int, int]] = resource.getrlimit

    def path(self, path: str) -> Path:
        """The file of the machine at the absolute ``path``."""
        return self.root / path.lstrip("/")

    def text(self, path: str) -> str | None:
        """The content of a file without the white space around it; None where it can't be read."""
        with suppress(OSError):
            return self.path(path).read_text(errors="replace").strip()
        return None

    def number(self, path: str) -> int | None:
        """The number that a file holds; None where there is none."""
        text = self.text(path)
        return int(text) if text is not None and text.isdigit() else None

    def names(self, path: str) -> list[str]:
        """The names in a folder, sorted; none where it can't be read."""
        with suppress(OSError):
            return sorted(entry.name for entry in self.path(path).iterdir())
        return []
