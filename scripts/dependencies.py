"""What sevlaunch depends on: the ranges of pyproject.toml, the lock in requirements/, and uv, which resolves them."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ("requirements/run.txt", "requirements/test.txt")

_CLASSIFIER = "Programming Language :: Python :: "


class UvError(Exception):
    """uv could not do it; the text is what it said."""


@dataclass(frozen=True)
class Ranges:
    """The requirements of a pyproject.toml as they are written there, and the Pythons that they are meant for."""

    build: tuple[str, ...]
    run: tuple[str, ...]
    test: tuple[str, ...]
    pythons: tuple[str, ...]


def ranges(root: Path) -> Ranges:
    """The requirements in the pyproject.toml of the folder ``root``; ``test`` is what all extras add."""
    content = tomllib.loads((root / "pyproject.toml").read_text())
    project = content["project"]
    extras = project["optional-dependencies"].values()
    return Ranges(
        build=tuple(content["build-system"]["requires"]),
        run=tuple(project["dependencies"]),
        test=tuple(sorted({requirement for extra in extras for requirement in extra})),
        pythons=tuple(entry.removeprefix(_CLASSIFIER) for entry in project["classifiers"] if _CLASSIFIER in entry),
    )


def blocks(lock: str) -> dict[str, str]:
    """The entries of a lock by package name: each pin with its hashes and the lines that say what needs it."""
    found: dict[str, str] = {}
    name = ""
    for line in lock.splitlines(keepends=True):
        if start := re.match(r"([a-z0-9][a-z0-9._-]*)==", line):
            name = start[1]
            found[name] = ""
        if name:
            found[name] += line
    return found


def versions(lock: str) -> dict[str, str]:
    """The version of each package in a lock."""
    return {name: block.split()[0].partition("==")[2] for name, block in blocks(lock).items()}


def locked(root: Path) -> str:
    """The whole lock of the folder ``root`` as one file for uv; empty where there is none yet."""
    files = [root / name for name in LOCK]
    return "".join(block for file in files if file.exists() for block in blocks(file.read_text()).values())


def uv(*arguments: str | Path, given: str = "", folder: Path = ROOT) -> None:
    """Run the locked uv in ``folder``, with ``given`` as its standard input.

    :raise UvError: when it fails.
    """
    done = subprocess.run(
        [str(Path(sys.executable).parent / "uv"), *map(str, arguments), "--no-config"],
        input=given,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise UvError(done.stderr.strip())


def resolve(root: Path, pins: Path, *options: str, extras: bool = True) -> str:
    """The packages that the pyproject.toml in ``root`` asks for, as pins.

    Only packages that come as wheels: a source package would be built with what nobody pinned.

    :param pins: a file for them; versions that it has are kept where the ranges and ``options`` allow.
    :param options: further ones of ``uv pip compile``.
    :raise UvError: when it can't be resolved.
    """
    everything = ("--all-extras",) if extras else ()
    uv(
        *("pip", "compile", "--quiet", "--no-header", "--only-binary", ":all:", "--output-file", pins),
        *(*everything, *options, "pyproject.toml", "-"),
        given="\n".join(ranges(root).build),
        folder=root,
    )
    return pins.read_text()
