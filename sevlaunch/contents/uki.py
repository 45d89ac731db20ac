"""Unified kernel images: a PE program whose sections are what it boots.

The UAPI Group's specification of that name; Microsoft's PE format. What systemd-stub does: its src/boot/stub.c.
"""

from __future__ import annotations

import struct

from msgspec import Struct

from sevlaunch.contents.volume import Volume
from sevlaunch.text import visible

# Of the DOS header: what it begins with, and where the PE header is.
_DOS = struct.Struct("<2s58xI")
# Signature; machine, how many sections, time, symbols, how many, bytes of the optional header, characteristics.
_PE = struct.Struct("<4sHHIIIHH")
# Name, bytes in memory, place there, bytes in the file, place there, and what no image has.
_SECTION = struct.Struct("<8sIIII16x")
_MOST_SECTIONS = 96
# Texts are short; who says otherwise says nothing that is shown.
_MOST_TEXT_BYTES = 64 << 10
_NEW_PROFILE = ".profile"


class Section(Struct, frozen=True):
    """Where the content of a section is in the file, in bytes."""

    at: int
    size: int


class Uki(Struct, frozen=True):
    """What an image's own sections say. ``cmdline``: None where it has no such section.

    ``profiles``: how many it has to choose from, of which the first is shown. ``sections``: by their names.
    """

    cmdline: str | None
    uname: str
    osrel: str
    profiles: int
    sections: dict[str, Section]


def read_uki(volume: Volume) -> Uki | None:
    """What a unified kernel image says; None for another file.

    :raise ValueError: when it is one whose sections are not in the file.
    """
    found = _sections(volume)
    base: dict[str, Section] = {}
    profiles: list[dict[str, Section]] = []
    for name, section in found:
        if name == _NEW_PROFILE:
            profiles.append({})
        # Of two sections of a name the stub takes the first.
        (profiles[-1] if profiles else base).setdefault(name, section)
    sections = base | (profiles[0] if profiles else {})
    if ".linux" not in sections:
        return None
    for name, section in sections.items():
        if section.at + section.size > volume.size:
            raise ValueError(f"it ends before its section {name} does")
    cmdline = _text(volume, sections.get(".cmdline"))
    if cmdline is not None:
        cmdline = as_stub_has_it(cmdline)
        check_cmdline(cmdline)
    return Uki(
        cmdline=cmdline,
        uname=_text(volume, sections.get(".uname")) or "",
        osrel=_text(volume, sections.get(".osrel")) or "",
        profiles=max(1, len(profiles)),
        sections=sections,
    )


def as_stub_has_it(cmdline: str) -> str:
    """A command line as systemd-stub takes it: up to NUL, line ends as spaces, without those around it."""
    text = "".join(letter if letter > "\x1f" else " " for letter in cmdline.split("\0")[0])
    return text.strip()


def check_cmdline(cmdline: str) -> None:
    """See that a command line that somebody else wrote is one, and that its bytes were understood.

    :raise ValueError: when it has control characters, which QEMU or a terminal would take for something else.
    """
    if not cmdline.isprintable() or "\ufffd" in cmdline:
        raise ValueError(f"its command line has control characters, or is no UTF-8: {visible(cmdline)}")


def os_release(text: str) -> dict[str, str]:
    """The fields of os-release(5), without quotes."""
    lines = (line.strip().partition("=") for line in text.splitlines() if not line.lstrip().startswith("#"))
    return {key: value.strip().strip("\"'") for key, separator, value in lines if separator}


def _sections(volume: Volume) -> list[tuple[str, Section]]:
    dos = volume.read(0, _DOS.size)
    if len(dos) < _DOS.size:
        return []
    magic, pe_at = _DOS.unpack(dos)
    header = volume.read(pe_at, _PE.size) if magic == b"MZ" else b""
    if len(header) < _PE.size:
        return []
    signature, _, count, _, _, _, optional, _ = _PE.unpack(header)
    if signature != b"PE\0\0" or count > _MOST_SECTIONS:
        return []
    table = volume.read(pe_at + _PE.size + optional, count * _SECTION.size)
    found = []
    for index in range(len(table) // _SECTION.size):
        name, in_memory, _, in_file, at = _SECTION.unpack_from(table, index * _SECTION.size)
        found.append((name.rstrip(b"\0").decode("ascii", "replace"), Section(at, min(in_memory, in_file))))
    return found


def _text(volume: Volume, section: Section | None) -> str | None:
    if section is None:
        return None
    if section.size > _MOST_TEXT_BYTES:
        raise ValueError("it has a text that is too long")
    return volume.read(section.at, section.size).rstrip(b"\0").decode(errors="replace")
