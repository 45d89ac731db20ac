"""Disks that a UEFI firmware boots, of a few kilobytes: a FAT file system with a program that names its disk.

The program writes its text to the first serial port and halts: what the console then shows is which disk was booted.
"""

from __future__ import annotations

import struct
from pathlib import Path

_SECTOR = 512
_CLUSTERS = 60
_ROOT_ENTRIES = 16
# Microsoft's FAT specification: a FAT12 entry of a file's last cluster.
_LAST = 0xFFF
_DIRECTORY, _FILE = 0x10, 0x20
# Where the program's only section begins, in the file and in memory.
_HEADERS = 0x200
_IMAGE = 0x1000


def write_bootable(path: Path, text: str, *, size: int = 1 << 20) -> Path:
    """A disk of ``size`` bytes whose program writes ``text`` and a line end."""
    content = _file_system(_program(text.encode() + b"\r\n"))
    path.write_bytes(content + bytes(size - len(content)))
    return path


def _program(text: bytes) -> bytes:
    """A PE32+ image for x86-64: Microsoft's PE format, with the subsystem of an EFI application."""
    code = bytes.fromhex(
        "fa"  # cli
        "488d3510000000"  # lea rsi, [rip + text]
        "baf8030000"  # mov edx, 0x3f8
        "ac"  # next: lodsb
        "84c0"  # test al, al
        "7403"  # jz done
        "ee"  # out dx, al
        "ebf8"  # jmp next
        "f4"  # done: hlt
        "ebfd"  # jmp done
    )
    section = (code + text + b"\0").ljust(_SECTOR, b"\0")
    dos = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40)
    header = b"PE\0\0" + struct.pack("<HHIIIHH", 0x8664, 1, 0, 0, 0, 0xF0, 0x22)
    sizes = (0x20B, 0, len(section), 0, 0, _IMAGE, _IMAGE, 0, _IMAGE, 0x200)
    optional = struct.pack("<HHIIIIIQII", *sizes)
    optional += struct.pack("<HHHHHHIIIIHH", 0, 0, 0, 0, 0, 0, 0, 2 * _IMAGE, _HEADERS, 0, 10, 0)
    optional += struct.pack("<QQQQII", 0, 0, 0, 0, 0, 16) + bytes(16 * 8)
    named = struct.pack("<8sIIIIIIHHI", b".text", len(section), _IMAGE, len(section), _HEADERS, 0, 0, 0, 0, 0x60000020)
    return (dos + header + optional + named).ljust(_HEADERS, b"\0") + section


def _file_system(program: bytes) -> bytes:
    """FAT12 with EFI/BOOT/BOOTX64.EFI, where firmware looks on a disk that it does not know (UEFI, 3.5.1.1)."""
    boot = struct.pack(
        "<3s8sHBHBHHBHHHII",
        b"\xeb\xfe\x90",
        b"TESTDISK",
        _SECTOR,
        1,
        1,
        1,
        _ROOT_ENTRIES,
        _CLUSTERS + 3,
        0xF8,
        1,
        1,
        1,
        0,
        0,
    )
    boot += struct.pack("<BBBI11s8s", 0x80, 0, 0x29, 1, b"NO NAME    ", b"FAT12   ")
    boot = boot.ljust(_SECTOR - 2, b"\0") + b"\x55\xaa"
    count = -(-len(program) // _SECTOR)
    # Clusters 2 and 3 are the folders, the program follows.
    chain = [0xFF8, _LAST, _LAST, _LAST, *range(5, 4 + count), _LAST]
    table = bytearray(_SECTOR)
    for number, entry in enumerate(chain):
        shifted = entry << (4 if number % 2 else 0)
        offset = number * 3 // 2
        table[offset : offset + 2] = (int.from_bytes(table[offset : offset + 2], "little") | shifted).to_bytes(
            2, "little"
        )
    root = _entry("EFI", _DIRECTORY, 2).ljust(_ROOT_ENTRIES * 32, b"\0")
    efi = (_entry(".", _DIRECTORY, 2) + _entry("..", _DIRECTORY, 0) + _entry("BOOT", _DIRECTORY, 3)).ljust(
        _SECTOR, b"\0"
    )
    folder = _entry(".", _DIRECTORY, 3) + _entry("..", _DIRECTORY, 2) + _entry("BOOTX64 EFI", _FILE, 4, len(program))
    content = boot + bytes(table) + root + efi + folder.ljust(_SECTOR, b"\0") + program
    return content.ljust((_CLUSTERS + 3) * _SECTOR, b"\0")


def _entry(name: str, attributes: int, cluster: int, size: int = 0) -> bytes:
    return struct.pack("<11sB8xHHHHI", name.ljust(11).encode(), attributes, 0, 0, 0, cluster, size)
