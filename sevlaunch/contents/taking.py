"""What would be booted from a disk: kernel, initrd and command line, out of its partitions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from msgspec import Struct

from sevlaunch.contents.entries import default_entry, default_pattern, entries
from sevlaunch.contents.filesystem import FileSystem, Unread, file_system
from sevlaunch.contents.grub import FOLDERS, grub_entry
from sevlaunch.contents.partitions import ESP, XBOOTLDR, Partition, partitions
from sevlaunch.contents.uki import Uki, check_cmdline, read_uki
from sevlaunch.contents.volume import Volume, Whole

# Initrds with all drivers of a distribution have 100 MiB.
MOST_BYTES = 512 << 20
_MOST_CMDLINE_BYTES = 64 << 10
# The kernel's Documentation/arch/x86/boot.rst: what stands in a kernel's header.
_HEADER_AT, _HEADER = 0x202, b"HdrS"
# Links that Debian's and other kernels' packages keep.
_LINKS = (("/vmlinuz", "/initrd.img"), ("/boot/vmlinuz", "/boot/initrd.img"), ("/boot/vmlinuz", "/boot/initrd"))
_CMDLINE = "/etc/kernel/cmdline"
# The kernel takes archives that follow each other, each at a multiple of so many bytes.
_ALIGNMENT = 4


class Taken(Struct, frozen=True):
    """What is booted. ``initrd``: None where there is none; ``cmdline``: None where none is told.

    ``places``: where kernel, initrd and cmdline were found. ``roots``: how a command line may name the disk's file
    systems; ``all_named``: whether that is all of them. ``cautions``: what makes it doubtful.
    """

    kernel: bytes
    initrd: bytes | None
    cmdline: str | None
    uki: Uki | None
    places: dict[str, str]
    roots: tuple[str, ...]
    all_named: bool
    cautions: tuple[str, ...]


class _Found(NamedTuple):
    partition: Partition
    system: FileSystem

    def place(self, path: str) -> str:
        return f"{path} in {self.partition.title} ({self.system.kind})"


def take(disk: Volume) -> Taken:
    """What a boot loader would start from a disk: see docs/measured-boot.md for the order in which it is looked for.

    :raise ValueError: when there is nothing, or nothing that can be read; with what there is.
    """
    found: list[_Found] = []
    unread: list[tuple[Partition, Unread]] = []
    for partition in partitions(disk):
        system = file_system(partition.content)
        if isinstance(system, Unread):
            unread.append((partition, system))
        else:
            found.append(_Found(partition, system))
    found.sort(key=_rank)
    for look in (_by_entry, _by_grub, _by_links):
        parts = look(found)
        if parts is not None:
            return _whole(parts, found, unread)
    raise ValueError(_nothing(found, unread))


class _Parts(NamedTuple):
    kernel: tuple[_Found, str]
    initrds: list[tuple[_Found, str]]
    cmdline: str | None
    cmdline_place: str


def _rank(found: _Found) -> int:
    kinds = (ESP, XBOOTLDR)
    return kinds.index(found.partition.kind) if found.partition.kind in kinds else len(kinds)


def _by_entry(found: Sequence[_Found]) -> _Parts | None:
    wanted = next((pattern for one in found if (pattern := default_pattern(one.system))), "")
    there = [entry for one in found for folder in ("", "/boot") for entry in entries(one.system, folder, MOST_BYTES)]
    entry = default_entry(there, wanted)
    if entry is None:
        return None
    home = next(one for one in found if one.system is entry.system)
    return _Parts(
        _file(found, home, entry.kernel),
        [_file(found, home, path) for path in entry.initrds],
        entry.cmdline,
        home.place(entry.path),
    )


def _by_grub(found: Sequence[_Found]) -> _Parts | None:
    for one in found:
        entry = grub_entry(one.system)
        if entry:
            return _Parts(
                _file(found, one, entry.kernel),
                [_file(found, one, path) for path in entry.initrds],
                entry.cmdline,
                f"{entry.title!r} of {one.place(entry.config)}",
            )
    return None


def _by_links(found: Sequence[_Found]) -> _Parts | None:
    for one in found:
        for kernel, initrd in _LINKS:
            if not one.system.is_file(kernel):
                continue
            content = one.system.read(_CMDLINE, _MOST_CMDLINE_BYTES)
            there = one.system.is_file(initrd)
            cmdline = None if content is None else " ".join(content.decode(errors="replace").split())
            return _Parts((one, kernel), [(one, initrd)] if there else [], cmdline, one.place(_CMDLINE))
    return None


def _file(found: Sequence[_Found], home: _Found, path: str) -> tuple[_Found, str]:
    """Where a path of a boot loader's leads: in its own file system, below its /boot, or in another one."""
    for one in (home, *(other for other in found if other is not home)):
        for candidate in (path, f"/boot/{path.lstrip('/')}"):
            folder, _, name = candidate.replace("\\", "/").rpartition("/")
            if name.lower() in (there.lower() for there in one.system.names(folder or "/")):
                return one, candidate
    raise ValueError(f"{home.place(path)} is not there, and its boot loader wants it")


def _whole(parts: _Parts, found: Sequence[_Found], unread: Sequence[tuple[Partition, Unread]]) -> Taken:
    kernel = _read(*parts.kernel)
    uki = read_uki(Whole(kernel))
    if uki is None and kernel[_HEADER_AT : _HEADER_AT + len(_HEADER)] != _HEADER:
        raise ValueError(f"{parts.kernel[0].place(parts.kernel[1])} is no Linux kernel")
    if parts.cmdline is not None:
        check_cmdline(parts.cmdline)
    initrd = b""
    for one in parts.initrds:
        initrd += bytes(-len(initrd) % _ALIGNMENT) + _read(*one)
    places = {"kernel": parts.kernel[0].place(parts.kernel[1])}
    if parts.initrds:
        places["initrd"] = " and ".join(one.place(path) for one, path in parts.initrds)
    if parts.cmdline is not None:
        places["cmdline"] = parts.cmdline_place
    used = {id(one): one for one, _ in (parts.kernel, *parts.initrds)}.values()
    roots = [name for one in found for name in _names(one.partition, one.system.uuid, one.system.label)]
    roots += [name for partition, other in unread for name in _names(partition, other.uuid, other.label)]
    return Taken(
        kernel=kernel,
        initrd=initrd or None,
        cmdline=parts.cmdline,
        uki=uki,
        places=places,
        roots=tuple(roots),
        all_named=all(other.uuid for _, other in unread),
        cautions=tuple(f"{one.partition.title}: {one.system.caution}" for one in used if one.system.caution),
    )


def _names(partition: Partition, uuid: str, label: str) -> Iterator[str]:
    for key, value in (("UUID", uuid), ("LABEL", label), ("PARTUUID", partition.guid), ("PARTLABEL", partition.name)):
        if value:
            yield f"{key}={value}"


def _read(found: _Found, path: str) -> bytes:
    content = found.system.read(path, MOST_BYTES)
    if not content:
        raise ValueError(f"{found.place(path)} is {'not there' if content is None else 'empty'}")
    return content


def _nothing(found: Sequence[_Found], unread: Sequence[tuple[Partition, Unread]]) -> str:
    looked = [(one.partition.number, f"{one.partition.title} ({one.system.kind}) has no kernel") for one in found]
    for partition, other in unread:
        why = f" ({other.why})" if other.why else ""
        looked.append((partition.number, f"{partition.title} is {other.kind}, which is not read here{why}"))
    places = f"loader/entries, EFI/Linux, {', '.join(folder.lstrip('/') for folder in FOLDERS)}, vmlinuz"
    return f"no kernel is found in it (looked for {places}): " + "; ".join(text for _, text in sorted(looked))
