"""Boot loader entries, and the one that is booted by default: the UAPI Group's Boot Loader Specification.

Entries of type 1 are files in loader/entries; those of type 2 are unified kernel images in EFI/Linux.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from functools import cmp_to_key
from glob import escape
from itertools import islice

from msgspec import Struct

from sevlaunch.contents.filesystem import FileSystem, walk
from sevlaunch.contents.grub import environment, expand
from sevlaunch.contents.uki import Uki, os_release, read_uki
from sevlaunch.contents.version import compare_versions
from sevlaunch.contents.volume import Whole

# The specification's name of this architecture.
_ARCHITECTURE = "x64"
_MOST_ENTRY_BYTES = 64 << 10
# More than any system keeps; each is read.
_MOST_ENTRIES, _MOST_IMAGES = 1000, 50
# Tries that are left, and tries that failed, at the end of the name of an entry that is being tried.
_COUNTED = re.compile(r"\+([0-9]+)(?:-([0-9]+))?$")


class Entry(Struct, frozen=True):
    """One entry. ``path``: its own file; ``kernel`` and ``initrds``: paths in its file system.

    ``uki``: what the kernel's sections say, where it is a unified image; ``name``: the file's, without its tries.
    """

    system: FileSystem
    path: str
    name: str
    kernel: str
    initrds: tuple[str, ...]
    cmdline: str | None
    sort_key: str
    machine_id: str
    version: str
    bad: bool
    uki: Uki | None = None


def entries(system: FileSystem, folder: str, most: int) -> Iterator[Entry]:
    """The entries of a file system.

    :param folder: where it is the boot partition: ``/boot`` of a root file system, else empty.
    :param most: bytes of a unified kernel image that are read.
    """
    for name, path in islice(walk(system, f"{folder}/loader/entries", (".conf",)), _MOST_ENTRIES):
        content = system.read(path, _MOST_ENTRY_BYTES)
        if content is not None and (entry := _type_1(system, name, path, content.decode(errors="replace"))):
            yield entry
    for name, path in islice(walk(system, f"{folder}/EFI/Linux", (".efi",)), _MOST_IMAGES):
        content = system.read(path, most)
        uki = read_uki(Whole(content)) if content else None
        if uki:
            yield _type_2(system, name, path, uki)


def default_entry(found: Sequence[Entry], wanted: str) -> Entry | None:
    """The entry that a boot loader starts: the first that ``wanted``, a pattern of loader.conf, fits, or of all."""
    ordered = sorted(found, key=cmp_to_key(_order))
    return next((entry for entry in ordered if _fits(entry.name.lower(), wanted.lower())), next(iter(ordered), None))


def _fits(name: str, pattern: str) -> bool:
    # GRUB, and old ones of systemd-boot, leave the ending out.
    return fnmatchcase(name, pattern) or fnmatchcase(name.rpartition(".")[0], pattern)


def default_pattern(system: FileSystem) -> str:
    """What loader.conf(5) says of the entry to start, or GRUB's environment, or empty."""
    content = system.read("/loader/loader.conf", _MOST_ENTRY_BYTES)
    pattern = _fields((content or b"").decode(errors="replace")).get("default", [""])[0]
    # Words such as @saved are in variables of the firmware, which a guest has none of.
    if pattern and not pattern.startswith("@"):
        return pattern
    kept = environment(system)
    return escape(kept.get("next_entry") or kept.get("saved_entry") or "")


def _fields(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, _, value = line.strip().replace("\t", " ").partition(" ")
        if key and not key.startswith("#"):
            found.setdefault(key, []).append(value.strip())
    return found


def _type_1(system: FileSystem, name: str, path: str, text: str) -> Entry | None:
    fields = _fields(text)
    if fields.get("architecture", [_ARCHITECTURE])[0].lower() != _ARCHITECTURE:
        return None
    kernel = next((fields[key][0] for key in ("linux", "uki", "efi") if key in fields), None)
    if kernel is None:
        return None
    # Some distributions put GRUB's variables there.
    options = expand(" ".join(fields.get("options", [])), environment(system))
    stem, bad = _stem(name.removesuffix(".conf"))
    return Entry(
        system=system,
        path=path,
        name=f"{stem}.conf",
        kernel=kernel,
        # Some put several into one line.
        initrds=tuple(one for line in fields.get("initrd", []) for one in line.split()),
        cmdline=options or None,
        sort_key=fields.get("sort-key", [""])[0],
        machine_id=fields.get("machine-id", [""])[0].lower(),
        version=fields.get("version", [""])[0],
        bad=bad,
    )


def _type_2(system: FileSystem, name: str, path: str, uki: Uki) -> Entry:
    release = os_release(uki.osrel)
    stem, bad = _stem(name[: -len(".efi")])
    return Entry(
        system=system,
        path=path,
        name=f"{stem}.efi",
        kernel=path,
        initrds=(),
        cmdline=None,
        sort_key=release.get("IMAGE_ID") or release.get("ID", ""),
        machine_id="",
        version=release.get("IMAGE_VERSION") or release.get("VERSION_ID") or release.get("BUILD_ID", ""),
        bad=bad,
        uki=uki,
    )


def _stem(name: str) -> tuple[str, bool]:
    """A name without its tries, and whether there are none left."""
    counted = _COUNTED.search(name)
    return (name[: counted.start()], int(counted[1]) == 0) if counted else (name, False)


def _order(one: Entry, other: Entry) -> int:
    """The specification's "Sorting": what failed to boot is last; then those with a sort key; newest first."""
    if one.bad != other.bad:
        return 1 if one.bad else -1
    if bool(one.sort_key) != bool(other.sort_key):
        return -1 if one.sort_key else 1
    if one.sort_key:
        keys, others = (one.sort_key, one.machine_id), (other.sort_key, other.machine_id)
        if keys != others:
            return -1 if keys < others else 1
        if newer := compare_versions(other.version, one.version):
            return newer
    return compare_versions(other.name, one.name)
