"""What the tests of guests share beside tests/conftest.py."""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from sevlaunch.guest.locks import WHOLE, Range, held_by_another
from sevlaunch.host.model import Host
from tests import needs
from tests.conftest import PROFILES, ROOT, Command, Result, qemu_binary_of, wait_until

PLAIN = PROFILES / "plain.yaml"
FAKE_QEMU = Path(__file__).parent / "fake_qemu.py"
JSON = ("--format", "json")
# What qemu-bridge-helper reads.
BRIDGE_CONFIGURATION = Path("/etc/qemu/bridge.conf")
MACVTAP_MAC = "52:54:00:aa:bb:01"
HUGE_PAGES = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")


def lock_of(file: Path, wanted: Range = WHOLE) -> Range | None:
    """The lock that some process holds on a file, or None, also where there is no file."""
    try:
        fd = os.open(file, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        return held_by_another(fd, wanted)
    finally:
        os.close(fd)


def tries(usual: int, soak: int) -> pytest.MarkDecorator:
    """How often a test repeats its race: ``usual`` times, and ``soak`` times where long runs are wanted."""
    return pytest.mark.parametrize("count", [usual, pytest.param(soak, marks=pytest.mark.soak)])


def with_qemu(binary: str) -> tuple[str, str]:
    """The option that chooses a QEMU."""
    return "--set", f"qemu.binary={binary}"


def some_qemu() -> tuple[str, str]:
    """The option that chooses one QEMU, where the version does not matter."""
    return with_qemu(qemu_binary_of("10.0"))


def fake_qemu(command: Command, scenario: str, *, commands: str = "", answer: Any = None) -> tuple[str, str]:
    """The option that chooses a fake QEMU, which plays scenarios of fake_qemu.py; real QEMU tells what it knows.

    :param scenario: of the launcher's monitor; ``commands``: of the commands' one, which is not there without.
    :param answer: what those that give an odd answer give.
    """
    command.environment["FAKE_QEMU"] = scenario
    command.environment["FAKE_ANSWER"] = json.dumps(answer)
    command.environment["FAKE_LOG"] = str(fake_log(command))
    if commands:
        command.environment["FAKE_COMMANDS"] = commands
    command.environment["REAL_QEMU"] = qemu_binary_of("10.0")
    # The user's own cache is no place for a fake.
    command.environment["XDG_CACHE_HOME"] = str(command.base / "cache")
    return with_qemu(str(FAKE_QEMU))


def fake_log(command: Command) -> Path:
    """Where a fake QEMU writes down what it was asked."""
    return command.base / "asked"


def status_of(command: Command, name: str) -> Any:
    """The answer of `status`."""
    return command("status", name, *JSON).json


def listed(command: Command) -> dict[str, str]:
    """The guests that `ps` shows, and their states."""
    return {guest["name"]: guest["state"] for guest in command("ps", *JSON).json}


def qemu_processes(command: Command) -> list[int]:
    """The QEMUs (real or fake) of a command's folders.

    A shell that is about to become one, as pyenv's python3 is for the fake, may have forked: its children are none.
    """
    parents = {}
    for pid in command.processes():
        with suppress(OSError):
            if b"-chardev" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                # The name in field 2 may hold spaces and parentheses; field 4 is the parent.
                parents[pid] = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return [pid for pid, parent in parents.items() if parent not in parents]


def nothing_left(command: Command, told: object = "") -> None:
    """Nothing is left behind; what is, is told with all that helps to find out why."""
    left = command.left_behind()
    details = [told]
    for pid in command.processes():
        for file in ("status", "cmdline"):
            with suppress(OSError):
                details.append(Path(f"/proc/{pid}/{file}").read_text().replace("\0", " "))
    assert left == [], "\n".join(map(str, details))


def ended(pid: int) -> bool:
    """Whether a process is gone, or a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in ("Z", "X")
    except OSError:
        return True


def no_traceback(result: Result) -> None:
    """An error is a message, never a traceback, and never "a mistake in sevlaunch"."""
    assert "Traceback" not in result.stderr
    assert "internal error" not in result.stderr


def wait_for_signal_handlers(process: subprocess.Popen[str]) -> None:
    """Wait until the command has begun: before that Python itself is still starting."""

    def caught() -> bool:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            return True
        mask = next((int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigCgt")), 0)
        return bool(mask >> (signal.SIGTERM - 1) & 1) or process.poll() is not None

    wait_until(caught, 30, "the command's signal handlers")


def finish(process: subprocess.Popen[str], limit: float = 60) -> Result:
    """What a started command gave."""
    output, errors = process.communicate(timeout=limit)
    return Result(process.returncode, output, errors)


def usual_duration(command: Command, *arguments: str | Path) -> float:
    """How long a start takes on this machine; the guest is taken down again."""
    begin = time.monotonic()
    command("up", *arguments)
    duration = time.monotonic() - begin
    command("down", "--all", "--now")
    return duration


def moments(count: int, duration: float) -> Iterator[float]:
    """Seconds into a start, spread evenly over it and a bit beyond, in random order."""
    spread = [(number + random.random()) / count * duration * 1.1 for number in range(count)]
    random.shuffle(spread)
    yield from spread


def pause_until(process: subprocess.Popen[str], seconds: float) -> None:
    """Wait for a moment of a race, or for the end of the process."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)


def is_free(command: Command, name: str) -> bool:
    """Whether nobody holds a lock of the guest's folder."""
    return not any(lock_of(command.runtime / name / lock) for lock in ("lock", "launcher"))


@contextmanager
def mounted(folder: Path, options: str, kind: str = "tmpfs") -> Iterator[None]:
    """A small file system on ``folder``; skips by name where mounting is not allowed."""
    done = subprocess.run(
        ["mount", "-t", kind, "-o", f"mode=0700,{options}".rstrip(","), kind, str(folder)],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.skip(f"no {kind} can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        # Lazily, for a test that failed may have left something open there.
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Take all the space of a file system; removing the file gives it back."""
    file = folder / "filler"
    with file.open("wb", buffering=0) as stream, suppress(OSError):
        while True:
            stream.write(bytes(4096))
    return file


def kill_all(pids: Sequence[int]) -> None:
    """SIGKILL, also for processes that are gone."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


class OrdinaryUser(Command):
    """``sevlaunch`` run by an ordinary user, from a test that runs as root."""

    UID = 65534

    def __init__(self, base: Path, python: str) -> None:
        super().__init__(base)
        self.python = python
        packages = Path(pytest.__file__).parent.parent
        self.environment.update(HOME=str(base), PYTHONPATH=f"{ROOT}:{packages}", PYTHONDONTWRITEBYTECODE="1")
        self.environment.pop("XDG_CACHE_HOME", None)
        self.memlock: int | None = None
        self.devices: dict[str, Path] = {}
        for path in (base, *base.rglob("*")):
            os.chown(path, self.UID, self.UID)

    def argv(self, *arguments: str | Path) -> list[str]:
        """The command line: root sets the limit, which the user could not raise, and becomes the user."""
        # setpriv itself still opens what root may; what env starts, the user may.
        become = ["setpriv", f"--reuid={self.UID}", f"--regid={self.UID}", "--clear-groups", "env"]
        limit = ["prlimit", f"--memlock={self.memlock}:{self.memlock}"] if self.memlock else []
        if self.devices:
            # In a mount namespace of its own, so that the machine's device files stay as they are.
            mounts = [f"mount --bind {shlex.quote(str(file))} {path}" for path, file in self.devices.items()]
            limit = ["unshare", "--mount", "sh", "-c", " && ".join([*mounts, 'exec "$@"']), "sh", *limit]
        return [*limit, *become, self.python, "-m", "sevlaunch", *map(str, arguments)]


def with_kvm(user: OrdinaryUser) -> None:
    """Lets the user open /dev/kvm, as a member of the group kvm may; skips by name where that can't be had."""
    needs.kvm()
    with_device(user, "/dev/kvm")


def with_device(user: OrdinaryUser, path: str) -> None:
    """Lets the user open a device file; skips by name where that can't be had."""
    file = user.base / Path(path).name
    user.devices[path] = file
    try:
        os.mknod(file, 0o666 | stat.S_IFCHR, Path(path).stat().st_rdev)
        file.chmod(0o666)
    except OSError as error:
        pytest.skip(f"no device file can be made here: {error.strerror}")
    done = user("--version", check=None)
    if done.code:
        pytest.skip(f"no mount namespace can be had here: {done.stderr.strip()}")


def ordinary_user(base: Path) -> OrdinaryUser:
    """The command of an ordinary user; skips by name where this test can't become one."""
    needs.root("becoming another user")
    for name in ("prlimit", "setpriv"):
        needs.program(name, "util-linux")
    # The project's own Python may be out of an ordinary user's reach, in a home folder.
    for python in (sys.executable, "/usr/bin/python3"):
        command = OrdinaryUser(base, python)
        done = command("--version", check=None)
        if done.code == 0:
            return command
    pytest.skip(f"an ordinary user can't run sevlaunch with {python}: {done.stderr.strip()[-200:]}")


@contextmanager
def free_huge_pages(count: int) -> Iterator[None]:
    """That many free huge pages of 2 MiB."""
    if not os.access(HUGE_PAGES, os.W_OK):
        pytest.skip("huge pages can't be set up here: that takes root and a kernel with them")
    # What is free but scattered becomes whole pages.
    Path("/proc/sys/vm/compact_memory").write_text("1")
    before = int(HUGE_PAGES.read_text())
    free = Host.probe().memory.hugepages_free["2M"]
    HUGE_PAGES.write_text(str(before - free + count))
    try:
        if Host.probe().memory.hugepages_free["2M"] != count:
            pytest.skip(f"the kernel found no {count} huge pages")
        yield
    finally:
        HUGE_PAGES.write_text(str(before))


def started_as_a_service(sevlaunch: Command, *options: str) -> None:
    """Start the guest with no more capabilities than its unit gives it, and take it down again."""
    unit = sevlaunch("unit", PLAIN, *options).stdout
    [names] = re.findall(r"^CapabilityBoundingSet=(.*)$", unit, re.MULTILINE)
    kept = ",".join(["-all", *(f"+{name.removeprefix('CAP_').lower()}" for name in names.split())])
    started = subprocess.run(
        [
            needs.program("setpriv", "util-linux"),
            f"--bounding-set={kept}",
            *sevlaunch.argv("up", PLAIN, "--paused", *options),
        ],
        env=sevlaunch.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert started.returncode == 0, started.stderr
    sevlaunch("down", "plain", "--now")
    assert sevlaunch.left_behind() == []
