"""CPUID, read without root.

CPUID is not a privileged instruction: a few bytes of machine code in an executable page of this process run it. Where
such a page is not allowed (SELinux ``execmem``), ``/dev/cpu/0/cpuid`` of the module ``cpuid`` is read: that needs root.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

# Leaf of memory encryption, AMD 24594 "APM volume 3", appendix E.4.17.
ENCRYPTION_LEAF = 0x8000001F

# void f(uint32_t leaf /* edi */, uint32_t subleaf /* esi */, uint32_t out[4] /* rdx */), System V x86-64 ABI:
# push rbx; mov r8,rdx; mov eax,edi; mov ecx,esi; cpuid; mov [r8],eax; mov [r8+4],ebx; mov [r8+8],ecx;
# mov [r8+12],edx; pop rbx; ret
_MACHINE_CODE = bytes.fromhex("534989d089f889f10fa241890041895804418948084189500c5bc3")


class Registers(NamedTuple):
    """What CPUID leaves in the registers."""

    eax: int
    ebx: int
    ecx: int
    edx: int


Reader = Callable[[int, int], Registers]


def reader() -> tuple[Reader, str]:
    """A function (leaf, subleaf) -> :class:`Registers`, and how it reads them, for people.

    :raise OSError: when CPUID can't be read here at all.
    """
    if (machine := os.uname().machine) != "x86_64":
        raise OSError(f"CPUID is an instruction of x86-64, and this is {machine}")
    try:
        return _Instruction(), "the CPUID instruction"
    except OSError as error:
        device = Path("/dev/cpu/0/cpuid")
        if not device.exists():
            raise OSError(f"no executable page ({error.strerror}), and no {device} (modprobe cpuid)") from error
        return _device(device), str(device)


class _Instruction:
    """Runs the CPUID instruction. Owns the page that holds the code, which has to live as long as the function."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._page.write(_MACHINE_CODE)
        prototype = ctypes.CFUNCTYPE(None, ctypes.c_uint32, ctypes.c_uint32, ctypes.POINTER(ctypes.c_uint32))
        self._function = prototype(ctypes.addressof(ctypes.c_char.from_buffer(self._page)))

    def __call__(self, leaf: int, subleaf: int) -> Registers:
        out = (ctypes.c_uint32 * 4)()
        self._function(leaf, subleaf, out)
        return Registers(*out)


def _device(path: Path) -> Reader:
    def read(leaf: int, subleaf: int) -> Registers:
        with path.open("rb", buffering=0) as device:
            device.seek(subleaf << 32 | leaf)
            return Registers(*struct.unpack("<4I", device.read(16)))

    return read
