"""What the tests share: QEMU binaries, isolated folders, the command, and a look for what was left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sevlaunch.host.model import Host
from tests import known_skips, machine, needs

ROOT = needs.ROOT
PROFILES = ROOT / "profiles"
HOSTS = ROOT / "tests/hosts"
VERSIONS = ("7.2", "10.0", "11.1")

# Whoever runs the tests in the background (nohup, a shell's &) has these ignored, and so would the commands under test.
for _number, _usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _usual)

# Where this is set, output that a program leaves in a buffer goes out all the same, which it does not for users.
os.environ.pop("PYTHONUNBUFFERED", None)


def qemu_binary_of(version: str) -> str:
    """The QEMU of a version; skips the test by name where it is not there."""
    found = needs.tool(f"qemu-{version}/qemu-system-x86_64")
    if found is None:
        pytest.skip(f"QEMU {version} is not here: scripts/test-tools {version} brings it")
    return str(found)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option with which scripts/test fails on a skip that nobody knows of."""
    parser.addoption(
        "--known-skips", action="store_true", help="fail when a test skips that tests/known-skips.toml does not list"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Watch the skips, where that is asked for."""
    if config.getoption("--known-skips"):
        known_skips.watch(config, ROOT / "tests/known-skips.toml", machine.is_of)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, so that no worker is left alone with one of them at the end."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a long run unless SEVLAUNCH_SOAK=1 or ``-m soak`` asks for it."""
    wanted = os.environ.get("SEVLAUNCH_SOAK") or "soak" in item.config.getoption("markexpr")
    if item.get_closest_marker("soak") and not wanted:
        pytest.skip("a long run: SEVLAUNCH_SOAK=1 or -m soak asks for it")


@pytest.fixture(params=VERSIONS)
def qemu_binary(request: pytest.FixtureRequest) -> str:
    """Each QEMU that scripts/test-tools brings."""
    return qemu_binary_of(request.param)


@pytest.fixture
def system_qemu() -> str:
    """The QEMU that is installed."""
    return needs.program("qemu-system-x86_64", "qemu-system-x86")


@pytest.fixture
def demo() -> Path:
    """The profile of the demo guest; skips by name where scripts/demo-guest has not built it."""
    needs.demo_guest()
    return PROFILES / "demo.yaml"


@pytest.fixture(params=VERSIONS)
def milan(request: pytest.FixtureRequest) -> Host:
    """A recorded EPYC Milan host with SEV, SEV-ES and SNP, with each QEMU."""
    return Host.load(HOSTS / f"milan-qemu-{request.param}.json")


@dataclass(frozen=True)
class Result:
    """What a run of the command gave."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """Standard output as JSON."""
        return json.loads(self.stdout)


class Command:
    """``sevlaunch`` with folders of its own."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.runtime = base / "run/sevlaunch"
        self.state = base / "state/sevlaunch"
        self.environment = {
            **os.environ,
            "XDG_RUNTIME_DIR": str(base / "run"),
            "XDG_STATE_HOME": str(base / "state"),
            "SEVLAUNCH_IMAGE_CATALOGUE": "",
            "SEVLAUNCH_IMAGE_MIRROR": "",
            "PYTHONPATH": str(ROOT),
        }
        (base / "run").mkdir(mode=0o700, exist_ok=True)

    def argv(self, *arguments: str | Path) -> list[str]:
        """The command line."""
        return [sys.executable, "-m", "sevlaunch", *map(str, arguments)]

    def __call__(self, *arguments: str | Path, check: int | None = 0, limit: float = 120, **options: Any) -> Result:
        """Run the command; ``check`` is the exit code that it must have (None: any)."""
        done = subprocess.run(
            self.argv(*arguments),
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=limit,
            cwd=options.pop("cwd", "/"),
            **options,
        )
        result = Result(done.returncode, done.stdout, done.stderr)
        if check is not None:
            assert result.code == check, f"exit {result.code}, wanted {check}\n{result.stdout}\n{result.stderr}"
        return result

    def start(self, *arguments: str | Path, **options: Any) -> subprocess.Popen[str]:
        """Start the command without waiting for it."""
        return subprocess.Popen(
            self.argv(*arguments),
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
            **options,
        )

    def console_logs(self, name: str) -> list[Path]:
        """The log of a guest's console, once it is there; where several profiles say the name, each has one."""
        return sorted((self.state / name).glob("*/console.log"))

    def processes(self) -> list[int]:
        """Every process that has this base folder in its command line: QEMUs and what runs beside them."""
        found = []
        for process in Path("/proc").iterdir():
            if process.name.isdigit() and int(process.name) != os.getpid():
                try:
                    arguments = (process / "cmdline").read_bytes()
                    state = (process / "stat").read_text().rpartition(")")[2].split()[0]
                except OSError:
                    continue
                if os.fsencode(self.base) in arguments and state != "Z":
                    found.append(int(process.name))
        return found

    def programs(self) -> list[int]:
        """The same without those that keep the logs of consoles."""
        return [pid for pid in self.processes() if not _is_keeper(pid)]

    def left_behind(self) -> list[str]:
        """Processes and files that are still there; a console's log is written to its end once QEMU is gone."""
        end = time.monotonic() + 10
        while self.processes() and not self.programs() and time.monotonic() < end:
            time.sleep(0.02)
        files = [str(path) for path in self.runtime.rglob("*")] if self.runtime.is_dir() else []
        return [*(f"process {pid}" for pid in self.processes()), *files]


@pytest.fixture
def base() -> Iterator[Path]:
    """A folder with a short path: a socket's path has at most 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="sl-", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def sevlaunch(base: Path) -> Iterator[Command]:
    """The command; guests that a test leaves are ended."""
    command = Command(base)
    try:
        yield command
    finally:
        # A rehearsal's helper ends with its QEMU; killed beside it, it could not tell what it ran (coverage).
        end = time.monotonic() + 10
        while running := command.processes():
            for pid in running:
                if not _is_helper(pid) or time.monotonic() > end:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)


def _is_keeper(pid: int) -> bool:
    try:
        return b"keeper.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _is_helper(pid: int) -> bool:
    try:
        return b"sevlaunch.rehearsal" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


def wait_until(condition: Callable[[], Any], limit: float = 60.0, what: str = "") -> Any:
    """The first true value of ``condition``, which is asked again and again; fails after ``limit`` seconds."""
    end = time.monotonic() + limit
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"{what or condition} did not become true within {limit:g} s"
        time.sleep(0.02)


def wait_for_console(command: Command, name: str, text: str, limit: float = 120.0) -> str:
    """The guest's console output once ``text`` is in it."""

    content = ""

    def look() -> bool:
        nonlocal content
        content = b"".join(log.read_bytes() for log in command.console_logs(name)).decode("utf-8", "replace")
        return text in content

    try:
        wait_until(look, limit, f"{text!r} on the console of {name}")
    except AssertionError as error:
        error.add_note(f"The console ends with {content[-2000:]!r}")
        raise
    return content
