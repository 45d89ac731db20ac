"""Runs scripts/quickstart and scripts/test in clean Debian systems: see scripts/test-systems."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from clean_roots import ACCOUNTS, SUITES, Account, CleanRoot, RootError, base_system, only_one, remove, unpack

ROOT = Path(__file__).resolve().parent.parent
LOGS = ROOT / "build/systems"
SCRIPTS = ("quickstart", "test")
# What lib.sh says where an ordinary user lacks packages.
ADMINISTRATOR = re.compile(r"^As root, run:\n {4}(\S.*)$", re.MULTILINE)
# pytest's summary, and its last line.
SKIPPED = re.compile(r"^SKIPPED \[(\d+)\] [^ ]+ (.*)$", re.MULTILINE)
FAILED = re.compile(r"^(?:FAILED|ERROR) .*$", re.MULTILINE)
COUNTS = re.compile(r"^(?:=+ )?((?:\d+ [a-z]+, )*\d+ [a-z]+) in [\d.]+s", re.MULTILINE)


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    code: int
    log: str
    seconds: float
    apt_unchanged: bool

    @property
    def good(self) -> bool:
        """Whether all is as it has to be."""
        return self.code == 0 and self.apt_unchanged

    def __str__(self) -> str:
        ended = "ok" if self.code == 0 else f"exit {self.code}"
        apt = "apt unchanged" if self.apt_unchanged else "APT CHANGED"
        return ", ".join([ended, *counts(self.log), f"{self.seconds:.0f} s", apt])


def counts(log: str) -> list[str]:
    """How many tests passed, were skipped, failed: what pytest counted last; nothing where it did not get so far."""
    found = COUNTS.findall(log)
    numbers = {what: number for number, what in (word.split() for word in found[-1].split(", "))} if found else {}
    wanted = ("passed", "skipped", "failed", "error", "errors")
    return [f"{numbers[what]} {what}" for what in wanted if what in numbers]


def details(log: str) -> list[str]:
    """Which tests failed, and why others were skipped, each reason once with the number of tests."""
    skipped = Counter[str]()
    for number, reason in SKIPPED.findall(log):
        skipped[reason] += int(number)
    return [*FAILED.findall(log), *(f"{number} skipped: {reason}" for reason, number in skipped.items())]


def command_for_root(log: str) -> str:
    """The command that a script names where packages are missing; nothing where it names none."""
    found = ADMINISTRATOR.search(log)
    return found[1] if found else ""


@dataclass
class Machine:
    """A clean system and the user who works on it."""

    name: str
    root: CleanRoot
    account: Account

    def __post_init__(self) -> None:
        self.apt = self.root.apt_checksum()

    def run(self, what: str, command: Sequence[str], account: Account | None = None) -> Outcome:
        """Run a command, kept in a log of its own."""
        log = LOGS / f"{self.name}-{what}.log".replace(" ", "-")
        begin = time.monotonic()
        with log.open("w") as output:
            code = self.root.run(account or self.account, command, output)
        seconds = time.monotonic() - begin
        return Outcome(code, log.read_text(errors="replace"), seconds, self.root.apt_checksum() == self.apt)

    def prepare(self, archive: Path) -> None:
        """Give the user an account and a clone."""
        if not self.account.is_root:
            self._as_root("useradd", "--create-home", self.account.name)
        clone = self.root.folder / self.account.project.lstrip("/")
        clone.mkdir(parents=True)
        subprocess.run(["tar", "-C", str(clone), "--no-same-owner", "-xf", str(archive)], check=True)
        self._as_root("chown", "-R", f"{self.account.name}:", self.account.project)

    def _as_root(self, *command: str) -> None:
        done = self.run(command[0], command, ACCOUNTS["root"])
        if not done.good:
            raise RootError(f"{shlex.join(command)} failed in {self.name}: {done}\n{done.log}")

    def try_script(self, script: str, arguments: Sequence[str], times: int) -> Iterator[tuple[str, Outcome]]:
        """Run a script that many times; before, root installs what it names, where its user may not."""
        command = [f"{self.account.project}/scripts/{script}", *(arguments if script == "test" else ())]
        if not self.account.is_root:
            refused = self.run(f"{script} without packages", command)
            for_root = command_for_root(refused.log)
            if for_root:
                unasked = ["env", "DEBIAN_FRONTEND=noninteractive", "sh", "-c", for_root]
                yield f"root runs {for_root}", self.run(f"packages for {script}", unasked, ACCOUNTS["root"])
        for number in range(1, times + 1):
            yield f"scripts/{script}, run {number}", self.run(f"{script} {number}", command)


def say(text: str) -> None:
    """A line, at once."""
    print(text, flush=True)


def arguments_of(words: Sequence[str]) -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(prog="test-systems", description=__doc__)
    parser.add_argument("--system", action="append", choices=list(SUITES), help="Debian 12 or 13; default: both")
    parser.add_argument("--user", action="append", choices=list(ACCOUNTS), help="default: both")
    parser.add_argument("--script", action="append", choices=SCRIPTS, help="default: both")
    parser.add_argument("--times", type=int, default=2, metavar="N", help="how often each script runs; default: 2")
    parser.add_argument("--renew", action="store_true", help="fetch the systems anew")
    parser.add_argument("arguments", nargs="*", help="arguments for scripts/test, after --")
    return parser.parse_args(words)


def main() -> int:
    """Run all that was asked for; 0 when all runs were good."""
    wanted = arguments_of(sys.argv[1:])
    if os.geteuid() != 0:
        command = shlex.join([str(ROOT / "scripts/test-systems"), *sys.argv[1:]])
        print(
            f"test-systems: making a system and entering it takes root. As root, run:\n    {command}", file=sys.stderr
        )
        return 1
    for number in (signal.SIGTERM, signal.SIGHUP):
        # nohup has it ignored.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    try:
        return _run_all(wanted)
    except (RootError, OSError, subprocess.CalledProcessError) as error:
        print(f"test-systems: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("test-systems: interrupted", file=sys.stderr)
        return 130


def _run_all(wanted: argparse.Namespace) -> int:
    LOGS.mkdir(parents=True, exist_ok=True)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sevlaunch/systems"
    failed = 0
    with only_one(cache / "roots") as roots:
        project = _archive_of_project(roots)
        systems = {version: _base_system(cache, version, wanted.renew) for version in wanted.system or SUITES}
        for version, user in product(systems, wanted.user or ACCOUNTS):
            root = unpack(systems[version], roots / f"debian-{version}-{user}")
            machine = Machine(root.folder.name, root, ACCOUNTS[user])
            machine.prepare(project)
            for script in wanted.script or SCRIPTS:
                for what, outcome in machine.try_script(script, wanted.arguments, wanted.times):
                    say("\n    ".join([f"Debian {version}, {user}: {what}: {outcome}", *details(outcome.log)]))
                    failed += not outcome.good
            remove(root.folder)
    say(f"{failed} of these runs failed; what each printed is in {LOGS}" if failed else "all runs were good")
    return 1 if failed else 0


def _archive_of_project(folder: Path) -> Path:
    """What is committed, as a clone has it."""
    archive = folder / "project.tar"
    git = ["git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT)]
    done = subprocess.run([*git, "archive", "-o", str(archive), "HEAD"], stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise RootError(f"git gives no archive of the project: {done.stderr.strip()}")
    changed = subprocess.run([*git, "status", "--porcelain"], stdout=subprocess.PIPE, text=True, check=True).stdout
    if changed:
        say("note: what is not committed is not tried")
    return archive


def _base_system(cache: Path, version: str, renew: bool) -> Path:
    with (LOGS / f"debian-{version}.log").open("w") as output:
        return base_system(cache, version, renew=renew, output=output)


if __name__ == "__main__":
    sys.exit(main())
