"""Renews requirements/, the lock of all that sevlaunch and its tests depend on, or says whether it is in step."""

from __future__ import annotations

import argparse
import sys
import tempfile
from itertools import takewhile
from pathlib import Path

from dependencies import LOCK, ROOT, UvError, blocks, locked, ranges, resolve, uv, versions
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# Wheels for any glibc since this one are taken: Debian 12 and later, Fedora, RHEL 9.
PLATFORM = "x86_64-manylinux_2_34"

_TITLES = (
    "# What sevlaunch is built with and needs to run",
    "# What its tests need besides",
)
_TITLE = "{title}: made by scripts/lock (see CONTRIBUTING.md) from these ranges of pyproject.toml\n"
_RANGE = "#   "
_HASH = "--hash=sha256:"


def main() -> int:
    """Do what the command line says: 0 when it is done or in step, 1 when not."""
    parser = argparse.ArgumentParser(prog="scripts/lock", description=__doc__)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--keep", action="store_true", help="change only what pyproject.toml's ranges call for")
    what.add_argument("--check", action="store_true", help="change nothing; exit 1: not in step with pyproject.toml")
    options = parser.parse_args()
    if options.check:
        found = complaints(ROOT)
        for complaint in found:
            print(f"lock: {complaint}", file=sys.stderr)
        if found:
            print("lock: scripts/lock --keep brings requirements/ in step with pyproject.toml", file=sys.stderr)
        return int(bool(found))
    try:
        renew(ROOT, keep=options.keep)
    except UvError as error:
        print(f"lock: requirements/ stays as it is: {error}", file=sys.stderr)
        return 1
    return 0


def complaints(root: Path) -> list[str]:
    """Where the lock in ``root`` is not what the pyproject.toml there asks for."""
    files = [root / name for name in LOCK]
    missing = [f"{name} is missing" for name, file in zip(LOCK, files, strict=True) if not file.exists()]
    if missing:
        return missing
    found = []
    pins: dict[str, str] = {}
    for name, file, wanted in zip(LOCK, files, _parts(root), strict=True):
        lock = file.read_text()
        head = takewhile(lambda line: line.startswith("#"), lock.splitlines())
        made_for = [line.removeprefix(_RANGE) for line in head if line.startswith(_RANGE)]
        found += [f"{name} was made without {line}" for line in wanted if line not in made_for]
        found += [f"{name} was made for {line}, which is no more" for line in made_for if line not in wanted]
        pins |= versions(lock)
        found += [f"{name} has no hash for {package}" for package, block in blocks(lock).items() if _HASH not in block]
        for line in wanted:
            requirement = Requirement(line)
            pin = pins.get(canonicalize_name(requirement.name))
            if pin is None or not requirement.specifier.contains(pin, prereleases=True):
                found.append(f"{name} has {pin or 'nothing'} for {line}")
    return found


def renew(root: Path, *, keep: bool) -> None:
    """Write the lock in ``root``; with ``keep`` versions stay that still fit.

    :raise UvError: when the ranges can't be resolved, or a package has no wheel for one of the Pythons.
    """
    wanted = ranges(root)
    with tempfile.TemporaryDirectory() as folder:
        pins = Path(folder) / "pins.txt"
        universal = ("--universal", "--generate-hashes", "--python-version", wanted.pythons[0])
        pins.write_text(locked(root))
        whole = blocks(resolve(root, pins, *universal, *(() if keep else ("--upgrade",))))
        to_run = blocks(resolve(root, pins, *universal, extras=False))
        parts = [
            {name: block for name, block in whole.items() if name in to_run},
            {name: block for name, block in whole.items() if name not in to_run},
        ]
        texts: list[str] = []
        for title, lines, part in zip(_TITLES, _parts(root), parts, strict=True):
            head = _TITLE.format(title=title) + "".join(f"{_RANGE}{line}\n" for line in lines)
            texts.append(head + ("" if not texts else f"-r {Path(LOCK[0]).name}\n") + "".join(part.values()))
        copies = [Path(folder) / Path(name).name for name in LOCK]
        for copy, text in zip(copies, texts, strict=True):
            copy.write_text(text)
        for python in wanted.pythons:
            _check_install(copies[-1], python, Path(folder) / "target")
    for name, text in zip(LOCK, texts, strict=True):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)


def _parts(root: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The requirements that each file of the lock is made for."""
    wanted = ranges(root)
    return (*wanted.build, *wanted.run), wanted.test


def _check_install(lock: Path, python: str, target: Path) -> None:
    uv(
        *("pip", "install", "--dry-run", "--quiet", "--require-hashes", "--only-binary", ":all:"),
        *("--python", sys.executable, "--python-version", python, "--python-platform", PLATFORM),
        *("--target", target, "--requirements", lock),
    )


if __name__ == "__main__":
    sys.exit(main())
