"""Made-up disks: file systems filled by their own programs, partitions by sfdisk, unified kernel images by hand."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests import needs

ESP = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
XBOOTLDR = "BC13C2FF-59E6-4262-A352-B275FD6F7172"
ROOT = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"
_MIB = 1 << 20
# Where a section of a made-up image may begin.
_ALIGNMENT = 512
_SECTION = struct.Struct("<8sIIIIIIHHI")


def run(*words: str | Path, given: bytes = b"") -> bytes:
    """The output of a program that has to do it."""
    done = subprocess.run([str(word) for word in words], input=given, capture_output=True, check=False)
    assert done.returncode == 0, f"{words}: {done.stderr.decode(errors='replace')}"
    return done.stdout


def kernel(text: str) -> bytes:
    """What has the header of Linux, and nothing behind it that could be run."""
    return (bytes(0x202) + b"HdrS" + text.encode()).ljust(5000, b"\x90")


def write_tree(folder: Path, files: Mapping[str, bytes | str]) -> Path:
    """A folder with these files; a text is where a symbolic link leads."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            path.symlink_to(content)
        else:
            path.write_bytes(content)
    return folder


def ext(file: Path, files: Mapping[str, bytes | str], *options: str, kind: str = "ext4", size: str = "24M") -> Path:
    """An ext2, ext3 or ext4 file system with these files, as mke2fs makes it."""
    tree = write_tree(file.with_suffix(".tree"), files)
    program = needs.program("mke2fs", "e2fsprogs")
    run(program, "-q", "-t", kind, "-L", "rootfs", *options, "-d", tree, file, size)
    return file


def fat(file: Path, files: Mapping[str, bytes], *options: str, size: int = 40 * _MIB) -> Path:
    """A FAT file system with these files, as mkfs.vfat and mtools make it."""
    maker, copy, folder = (
        needs.program("mkfs.vfat", "dosfstools"),
        needs.program("mcopy", "mtools"),
        needs.program("mmd", "mtools"),
    )
    with file.open("wb") as stream:
        stream.truncate(size)
    run(maker, "-n", "BOOT", *options, file)
    made: set[str] = set()
    for name, content in files.items():
        parts = name.split("/")
        for end in range(1, len(parts)):
            place = "/".join(parts[:end])
            if place not in made:
                run(folder, "-i", file, f"::{place}")
                made.add(place)
        source = file.with_suffix(".content")
        source.write_bytes(content)
        run(copy, "-i", file, source, f"::{name}")
    return file


def disk(file: Path, parts: Sequence[tuple[str, Path]], *, label: str = "gpt", qcow2: bool = False) -> Path:
    """A disk of these partitions: type and content each; ``label`` as sfdisk calls the kind of table."""
    lines, start = [f"label: {label}"], 1
    places = []
    for kind, content in parts:
        size = -(-content.stat().st_size // _MIB)
        lines.append(f"start={start}MiB, size={size}MiB, type={kind}")
        places.append((start, content))
        start += size
    raw = file.with_suffix(".raw")
    with raw.open("wb") as stream:
        stream.truncate((start + 1) * _MIB)
    run(needs.program("sfdisk", "fdisk"), "-q", raw, given="\n".join(lines).encode())
    with raw.open("r+b") as stream:
        for at, content in places:
            stream.seek(at * _MIB)
            stream.write(content.read_bytes())
    if qcow2:
        run(needs.program("qemu-img", "qemu-utils"), "convert", "-q", "-c", "-O", "qcow2", raw, file)
        return file
    return raw


def uki(sections: Sequence[tuple[str, bytes]]) -> bytes:
    """A PE program with these sections, which nothing could run."""
    return add_sections(_empty_program(), sections)


def add_sections(program: bytes, sections: Sequence[tuple[str, bytes]]) -> bytes:
    """A PE program, such as systemd-stub, with further sections behind its own."""
    (pe_at,) = struct.unpack_from("<I", program, 0x3C)
    (count,) = struct.unpack_from("<H", program, pe_at + 6)
    (optional,) = struct.unpack_from("<H", program, pe_at + 20)
    table_at = pe_at + 24 + optional
    (memory_alignment,) = struct.unpack_from("<I", program, pe_at + 24 + 32)
    (headers,) = struct.unpack_from("<I", program, pe_at + 24 + 60)
    assert table_at + (count + len(sections)) * _SECTION.size <= headers, "no room for the headers of sections"
    ends = [_SECTION.unpack_from(program, table_at + index * _SECTION.size) for index in range(count)]
    in_memory = max((at + size for _, size, at, *_ in ends), default=memory_alignment)
    image, added = bytearray(program), []
    for name, content in sections:
        image += bytes(-len(image) % _ALIGNMENT)
        in_memory += -in_memory % memory_alignment
        padded = content + bytes(-len(content) % _ALIGNMENT)
        header = (name.encode(), len(content), in_memory, len(padded), len(image), 0, 0, 0, 0, 0x40000040)
        added.append(_SECTION.pack(*header))
        image += padded
        in_memory += len(content)
    start = table_at + count * _SECTION.size
    image[start : start + len(added) * _SECTION.size] = b"".join(added)
    struct.pack_into("<H", image, pe_at + 6, count + len(sections))
    struct.pack_into("<I", image, pe_at + 24 + 56, in_memory + -in_memory % memory_alignment)
    return bytes(image)


def _empty_program() -> bytes:
    dos = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40)
    header = b"PE\0\0" + struct.pack("<HHIIIHH", 0x8664, 0, 0, 0, 0, 0xF0, 0x22)
    optional = struct.pack("<HHIIIIIQII", 0x20B, 0, 0, 0, 0, 0x1000, 0x1000, 0, 0x1000, 0x200)
    optional += struct.pack("<HHHHHHIIIIHH", 0, 0, 0, 0, 0, 0, 0, 0x1000, 0x400, 0, 10, 0)
    return (dos + header + optional.ljust(0xF0, b"\0")).ljust(0x400, b"\0")
