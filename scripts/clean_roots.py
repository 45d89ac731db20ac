"""Root folders of clean Debian systems, and programs that run in them as if each were a machine of its own.

A program runs in mount and process namespaces that end with it: whatever ends it, no mount and no process is left.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

SUITES = {"12": "bookworm", "13": "trixie"}
BUILDERS = ("mmdebstrap", "debootstrap")
DEBIAN = "http://deb.debian.org/debian"
# How this machine reaches repositories and package indexes; nothing else of its settings gets into a root.
VARIABLE = re.compile(
    r"(?i:(?:http|https|ftp|all|no)_proxy)|SSL_CERT_FILE|PIP_(?:CERT|PROXY|INDEX_URL|TRUSTED_HOST|DEFAULT_TIMEOUT)"
)
APT_SETTING = re.compile(r"Acquire::(?:https?|socks|Check-|Retries|ForceIPv)")
CERTIFICATES = Path("/usr/local/share/ca-certificates")
# $1 is the root folder, the command follows. The first process of a process namespace has to wait for orphans, so that
# it is a shell; pivot_root, because the kernel gives nobody in a chroot a user namespace. systemd-analyze would
# make its folder in /run, which every machine with systemd has, and an ordinary user can't.
ENTER = """\
set -e
root=$1
shift
mount --rbind "$root" "$root"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=1777 shm "$root/dev/shm"
mount -t tmpfs -o mode=0755 run "$root/run"
mkdir "$root/run/systemd"
cd "$root"
pivot_root . .
umount -l .
cd /
"$@" < /dev/null
exit $?
"""


class RootError(Exception):
    """A root folder can't be made; the message says why and what to do."""


@dataclass(frozen=True)
class Account:
    """Who runs programs in a root, and where that user's clone is."""

    name: str
    home: str
    project: str

    @property
    def is_root(self) -> bool:
        """Whether it may install packages."""
        return self.name == "root"


# Root's clone is where every user can read it.
ACCOUNTS = {
    "root": Account("root", "/root", "/srv/sevlaunch"),
    "ordinary": Account("tester", "/home/tester", "/home/tester/sevlaunch"),
}


class CleanRoot:
    """The root folder of a system that nothing was installed in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, account: Account, command: Sequence[str], output: IO[str]) -> int:
        """Run a program as a user in the home folder; its exit code. What it prints goes to ``output``."""
        environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": account.home,
            "USER": account.name,
            "LOGNAME": account.name,
            "LANG": "C.UTF-8",
            **network_variables(os.environ),
        }
        become = ["setpriv", f"--reuid={account.name}", f"--regid={account.name}", "--init-groups"]
        there = [*become, "env", "-C", account.home, *command]
        words = [f"{name}={value}" for name, value in environment.items()]
        namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]
        enter = ["sh", "-c", ENTER, "sh", str(self.folder)]
        # Where this program is killed, unshare is, and with it all that runs in the namespaces.
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *namespaces, *enter, "env", "-i", *words, *there],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Ctrl-C is for this program, which then ends what it started.
            start_new_session=True,
        )
        try:
            return process.wait()
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def apt_checksum(self) -> str:
        """A sum over all of apt's configuration."""
        return checksum(self.folder / "etc/apt")


def checksum(folder: Path) -> str:
    """A sum over the names, modes and contents of all files below ``folder``."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        content = os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        total.update(f"{path.relative_to(folder)} {path.lstat().st_mode:o} {len(content)}\n".encode() + content)
    return total.hexdigest()


def network_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Those that say how to reach package indexes."""
    return {name: value for name, value in environment.items() if VARIABLE.fullmatch(name)}


def network_settings(dump: str) -> str:
    """Those lines of `apt-config dump` that say how to reach repositories."""
    return "".join(f"{line}\n" for line in dump.splitlines() if APT_SETTING.match(line))


def mirror(targets: str) -> str:
    """The repository of Debian's that this machine uses, of those that `apt-get indextargets` lists; else its own."""
    found = re.search(r"^https?://\S*/debian/?$", targets, re.MULTILINE)
    return found[0].rstrip("/") if found else DEBIAN


@contextmanager
def only_one(folder: Path) -> Iterator[Path]:
    """A folder for roots, for one run at a time; what an earlier run left, because it was killed, is removed.

    :raise RootError: when another run is under way.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RootError(f"another run is under way: {folder} is locked") from error
        _empty(folder)
        try:
            yield folder
        finally:
            _empty(folder)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file or a folder, on its own file system alone."""
    subprocess.run(["rm", "-rf", "--one-file-system", str(path)], check=True)


def base_system(cache: Path, version: str, *, renew: bool, output: IO[str]) -> Path:
    """The archive of a clean system, made unless it is in the cache.

    :raise RootError: when it can't be made.
    """
    archive = cache / f"debian-{version}.tar"
    if archive.exists() and not renew:
        return archive
    builder = next(filter(shutil.which, BUILDERS), None)
    if builder is None:
        raise RootError(f"{' or '.join(BUILDERS)} is needed. As root, run:\n    apt-get install {BUILDERS[0]}")
    targets = _shown_by("apt-get", "indextargets", "--format", "$(REPO_URI)")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".new-") as work:
        system, packed = Path(work) / "system", Path(work) / "packed.tar"
        # mmdebstrap packs by itself where it is given no folder, but then into /tmp first, which may be small.
        commands = [
            [builder, "--variant=minbase", SUITES[version], str(system), mirror(targets)],
            ["tar", "--numeric-owner", "--one-file-system", "-C", str(system), "-cf", str(packed), "."],
        ]
        for command in commands:
            if subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False).returncode:
                raise RootError(f"{command[0]} failed: see {output.name}")
        packed.rename(archive)
    return archive


def unpack(archive: Path, folder: Path) -> CleanRoot:
    """A root from the archive of a system, with what it takes to reach the network from this machine."""
    folder.mkdir()
    subprocess.run(["tar", "--numeric-owner", "-C", str(folder), "-xpf", str(archive)], check=True)
    shutil.copyfile("/etc/resolv.conf", folder / "etc/resolv.conf")
    settings = network_settings(_shown_by("apt-config", "dump"))
    (folder / "etc/apt/apt.conf.d/00network").write_text(settings)
    if CERTIFICATES.is_dir():
        # The package ca-certificates adds them to its own when it is installed.
        shutil.copytree(CERTIFICATES, folder / CERTIFICATES.relative_to("/"), dirs_exist_ok=True)
    return CleanRoot(folder)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        remove(path)


def _shown_by(*command: str) -> str:
    """What a command prints; nothing where the machine has no such command."""
    if not shutil.which(command[0]):
        return ""
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False).stdout
