"""What of this machine a kernel of its own gets to see: the project, its Python, QEMU, and all that these load."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

from demo_initrd import Entry

PROJECT = ("sevlaunch", "tests", "profiles", "scripts", "pyproject.toml")
# How a number becomes a user, and a name a library.
SETTINGS = ("/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/ld.so.cache", "/etc/os-release")
# Wherever distributions keep QEMU's ROMs, its accelerators, and the firmware of guests.
QEMU_FILES = (
    "share/qemu",
    "share/seabios",
    "share/seavgabios",
    "share/OVMF",
    "share/ovmf",
    "share/edk2",
    "share/ipxe",
    "lib/ipxe",
    "lib*/qemu/accel-tcg*.so",
    "lib/*/qemu/accel-tcg*.so",
)
# What Python has beside what these tests take, and what is asked for by its name.
LEFT_OUT = re.compile(
    r"test|idlelib|tkinter|turtledemo|lib2to3|ensurepip|config-.*|.*-packages|_tkinter\..*|.*\.opt-[12]\.pyc|.*\.a"
)
PACKAGES = ("sevlaunch", "pytest", "pytest-asyncio")
REQUIREMENT = re.compile(r"[\w.-]+")
LIBRARY = re.compile(rb"^\t(?:\S+ => )?(/\S+) \(0x", re.MULTILINE)


def machine_files(programs: Iterable[str]) -> list[Entry]:
    """The files and folders, each once, a folder before what is in it. Everyone may read them.

    :param programs: paths of programs that come along, beside Python.
    """
    files = MachineFiles()
    for name in (*programs, sys.executable, f"{sys.prefix}/pyvenv.cfg", *SETTINGS):
        files.add(Path(name))
    for name in PROJECT:
        files.add(ROOT / name)
    for pattern in QEMU_FILES:
        for path in Path("/usr").glob(pattern):
            files.add(path)
    for key in ("stdlib", "platstdlib"):
        files.add(Path(sysconfig.get_path(key)))
    for path in _packages():
        files.add(path)
    files.add_libraries()
    return list(files.entries.values())


class MachineFiles:
    """Files by their paths. What a symbolic link leads to comes with it."""

    def __init__(self) -> None:
        self.entries: dict[Path, Entry] = {Path("/"): Entry("", stat.S_IFDIR | 0o755)}

    def add(self, path: Path) -> None:
        """Add a file, or a folder with all in it; what is not there, or is not ours to read, is not added."""
        path = Path(os.path.normpath(path))
        if not os.path.lexists(path):
            return
        for folder in reversed(path.parents):
            if folder not in self.entries and not folder.is_symlink():
                self._put(folder, stat.S_IFDIR | 0o755)
            elif folder.is_symlink():
                self._add_link(folder)
                self.add(folder.parent / folder.readlink() / path.relative_to(folder))
                return
        if path in self.entries:
            return
        if path.is_symlink():
            self._add_link(path)
            self.add(path.parent / path.readlink())
        elif path.is_dir():
            self._put(path, stat.S_IFDIR | 0o755)
            if os.access(path, os.R_OK | os.X_OK):
                for child in sorted(path.iterdir()):
                    if not LEFT_OUT.fullmatch(child.name):
                        self.add(child)
        elif path.is_file() and os.access(path, os.R_OK):
            mode = 0o755 if os.access(path, os.X_OK) else 0o644
            self._put(path, stat.S_IFREG | mode, path.read_bytes())

    def add_libraries(self) -> None:
        """Add what the programs and libraries among the files are linked with, and what that is linked with."""
        programs = [path for path, entry in self.entries.items() if entry.data.startswith(b"\x7fELF")]
        # It complains of those that are linked statically; whatever lacks a library will say so itself.
        told = subprocess.run(["ldd", *programs], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False).stdout
        for path in sorted(set(LIBRARY.findall(told))):
            self.add(Path(os.fsdecode(path)))

    def _add_link(self, path: Path) -> None:
        self._put(path, stat.S_IFLNK | 0o777, os.fsencode(path.readlink()))

    def _put(self, path: Path, mode: int, data: bytes = b"") -> None:
        # Python takes what it compiled for up to date by the time of the source.
        modified = int(path.lstat().st_mtime)
        self.entries[path] = Entry(str(path.relative_to("/")), mode, data, modified=modified)


def _packages() -> set[Path]:
    """What belongs to the packages, and to those that they require and that are installed."""
    names, found = list(PACKAGES), {}
    for name in names:
        with suppress(PackageNotFoundError):
            found[name] = distribution(name)
            required = [REQUIREMENT.match(line) for line in found[name].requires or () if "extra ==" not in line]
            names += [match[0] for match in required if match and match[0] not in names]
    paths = [(package, path.parts[0]) for package in found.values() for path in package.files or ()]
    return {Path(str(package.locate_file(name))) for package, name in paths if name != ".."}
