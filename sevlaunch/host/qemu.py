"""What a QEMU binary knows, asked from the binary itself and cached.

The answers are kept in the user's cache folder under the binary's path, size and time of change.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
from pathlib import Path

import msgspec

from sevlaunch.atomic import make_private_folder, write_whole
from sevlaunch.documents import decode
from sevlaunch.errors import HostError
from sevlaunch.host.facts import DEVICE_PREFIXES, MAX_ANSWERS, QemuFacts
from sevlaunch.host.folders import base_folder
from sevlaunch.remedies import INSTALL_QEMU

BINARY_NAMES = ("qemu-system-x86_64", "qemu-kvm", "/usr/libexec/qemu-kvm", "/usr/bin/qemu-kvm")
# Devices can live in modules, which are installed apart from the binary.
MODULE_FOLDERS = ("/usr/lib/x86_64-linux-gnu/qemu", "/usr/lib/qemu", "/usr/lib64/qemu", "/usr/lib64/qemu-kvm")


def find_binary(wanted: str = "auto") -> str:
    """The absolute path of the QEMU binary.

    :raise HostError: when there is none.
    """
    if wanted != "auto":
        if os.access(wanted, os.X_OK) and Path(wanted).is_file():
            return wanted
        found = "which is not an executable file" if Path(wanted).exists() else "which does not exist"
        raise HostError(f"wanted the QEMU binary {wanted}, {found}", hint="correct qemu.binary in the profile")
    for name in BINARY_NAMES:
        binary = shutil.which(name)
        if binary:
            return binary
    raise HostError(
        "QEMU is missing: no qemu-system-x86_64 on PATH",
        hint=f"{INSTALL_QEMU}, or name it in qemu.binary",
    )


def qemu_facts(binary: str) -> QemuFacts:
    """What ``binary`` knows, from the cache or from itself.

    :raise HostError: when it does not answer like QEMU.
    """
    cache = _cache_file(binary)
    # A cache that can't be read, or has another shape, is as good as none.
    with contextlib.suppress(OSError, ValueError):
        known = decode(_read_own(cache), QemuFacts)
        # What is there is run by this name.
        if known.binary == binary:
            return known
    # Nobody waits for the code that asks while the answers are known.
    from sevlaunch.host.qemu_answers import ask

    facts = ask(binary)
    # Without a cache the next command asks again, nothing else.
    with contextlib.suppress(OSError, HostError):
        make_private_folder(cache.parent)
        if cache.parent.stat().st_uid == os.geteuid():
            # One that was made before, with the umask of that time.
            cache.parent.chmod(0o700)
        write_whole(cache, msgspec.json.encode(facts))
    return facts


def _read_own(cache: Path) -> bytes:
    """A file of this user's that nobody else could have written.

    :raise OSError: when it is none.
    """
    fd = os.open(cache, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as stream:
        for found in (os.fstat(fd), cache.parent.stat()):
            if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise PermissionError(f"{cache} may be another user's")
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(f"{cache} is no regular file")
        return stream.read(MAX_ANSWERS)


def _cache_file(binary: str) -> Path:
    root = base_folder("XDG_CACHE_HOME") or Path.home() / ".cache"
    # The file behind a wrapper or an alternative is what changes when QEMU is updated.
    status = Path(binary).resolve().stat()
    modules = [Path(folder).stat().st_mtime_ns for folder in MODULE_FOLDERS if Path(folder).is_dir()]
    asked = (QemuFacts.__struct_fields__, DEVICE_PREFIXES)
    key = f"{asked}\0{binary}\0{status.st_size}\0{status.st_mtime_ns}\0{modules}"
    return root / "sevlaunch" / f"qemu-{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"
