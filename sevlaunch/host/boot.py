"""What a direct boot starts: a kernel that a profile names, or what is taken out of a disk's image for it.

What is taken lies in files named by their SHA-256, in a folder of this user's cache: QEMU, digest and lock file see the
same bytes. A note for each image says what was taken, so that an image is read once as long as it stays as it is.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import msgspec
from msgspec import Struct

from sevlaunch.atomic import make_private_folder, write_whole
from sevlaunch.contents.uki import Uki, os_release, read_uki
from sevlaunch.contents.volume import Raw
from sevlaunch.documents import decode
from sevlaunch.errors import HostError
from sevlaunch.host.facts import BootFacts, UkiFacts
from sevlaunch.host.folders import boot_files_folder, image_file
from sevlaunch.opening import open_regular

if TYPE_CHECKING:
    from sevlaunch.contents.taking import Taken

# Of what is taken, and how; another number has all taken anew.
_VERSION = 1
_MOST_NOTE_BYTES = 1 << 20
# What nobody has booted for so long goes when something else is taken.
_UNUSED_SECONDS = 30 * 24 * 3600


class _Note(Struct, frozen=True):
    """What was taken from an image that was the file of this ``identity``."""

    version: int
    identity: tuple[int, ...]
    boot: BootFacts


def kernel_facts(path: str) -> BootFacts | None:
    """What the kernel in a file is; None where it can't be looked at."""
    try:
        with open_regular(path, but_block_device=True) as file:
            uki = read_uki(Raw(file))
    except OSError:
        return None
    except ValueError as error:
        return BootFacts(problem=f"{path} is a unified kernel image that is damaged: {error}", hint="get it again")
    return BootFacts(kernel=path, cmdline=uki.cmdline if uki else None, uki=_uki_facts(uki) if uki else None)


def boot_facts(source: str, folder: Path | None = None) -> BootFacts:
    """What is booted from the image of a disk, taken out of it.

    :param source: the image's path, or its entry in the cache of fetched ones.
    :param folder: where it is put, instead of into this user's cache.
    """
    path = source if source.startswith("/") else str(image_file(source))
    try:
        with open_regular(path, but_block_device=True) as file:
            return _taken(path, file, folder or boot_files_folder())
    except OSError as error:
        hint = "it is taken from the image where that is: make it, or correct the profile"
        return BootFacts(problem=f"can't read {path}: {error.strerror}", hint=hint)


def _taken(path: str, file: BinaryIO, folder: Path) -> BootFacts:
    status = os.fstat(file.fileno())
    identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    note = folder / f"{hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()[:32]}.json"
    # Nobody can tell whether a block device is still the same.
    known = None if stat.S_ISBLK(status.st_mode) else _known(note, identity)
    if known:
        return known
    # An image is read once; every other start does without the readers of file systems.
    from sevlaunch.contents.taking import take
    from sevlaunch.contents.volume import open_volume

    try:
        found = take(open_volume(file))
    except ValueError as error:
        return BootFacts(
            problem=f"nothing can be booted from {path}: {error}",
            hint="name the files themselves: boot.kernel, boot.initrd, boot.cmdline",
        )
    try:
        make_private_folder(folder)
        boot = _kept(found, folder)
        _remove_unused(folder)
        write_whole(note, msgspec.json.encode(_Note(_VERSION, identity, boot)))
    except OSError as error:
        return BootFacts(problem=f"can't make the folder {folder}: {error.strerror}", hint="set XDG_CACHE_HOME")
    except HostError as error:
        return BootFacts(problem=error.message, hint=error.hint or "make room for it, or set XDG_CACHE_HOME")
    return boot


def _known(note: Path, identity: tuple[int, ...]) -> BootFacts | None:
    """What was taken before, if the image is still the same, and the files are still there."""
    with suppress(OSError, ValueError):
        if note.parent.stat().st_uid != os.geteuid() or note.parent.stat().st_mode & 0o022:
            return None
        with note.open("rb") as stream:
            found = decode(stream.read(_MOST_NOTE_BYTES), _Note)
        if (found.version, found.identity) != (_VERSION, identity):
            return None
        for path in filter(None, (found.boot.kernel, found.boot.initrd)):
            os.utime(path)
        return found.boot
    return None


def _kept(found: Taken, folder: Path) -> BootFacts:
    return BootFacts(
        kernel=_file(folder, found.kernel),
        initrd=_file(folder, found.initrd) if found.initrd else "",
        cmdline=found.uki.cmdline if found.uki and found.cmdline is None else found.cmdline,
        uki=_uki_facts(found.uki) if found.uki else None,
        places=found.places,
        roots=list(found.roots),
        all_named=found.all_named,
        cautions=list(found.cautions),
    )


def _file(folder: Path, content: bytes) -> str:
    path = folder / hashlib.sha256(content).hexdigest()
    write_whole(path, content)
    return str(path)


def _remove_unused(folder: Path) -> None:
    """Remove what was not booted for long: a guest that still runs has read it."""
    before = time.time() - _UNUSED_SECONDS
    for path in folder.iterdir():
        with suppress(OSError):
            if path.stat().st_mtime < before:
                path.unlink()


def _uki_facts(uki: Uki) -> UkiFacts:
    release = os_release(uki.osrel)
    initrd = uki.sections.get(".initrd")
    return UkiFacts(
        name=release.get("PRETTY_NAME") or release.get("NAME", ""),
        uname=uki.uname.strip(),
        cmdline=uki.cmdline,
        initrd_bytes=initrd.size if initrd else 0,
        profiles=uki.profiles,
    )
