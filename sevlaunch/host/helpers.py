"""Helper programs that run beside QEMU: where they are, and which options they have."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable

from sevlaunch.host.facts import HelperFacts

# Beside PATH: Debian 12's qemu-system-common, and the virtiofsd of others.
PLACES = {"virtiofsd": ("/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd", "/usr/lib/virtiofsd")}
_LIMIT = 10.0
_OPTION = r"(?<![\w-])--[a-z][a-z0-9-]*"


def helpers_here(names: Iterable[str]) -> dict[str, HelperFacts]:
    """The facts of each program that is on this machine, by its name."""
    return {name: facts for name in names if (facts := _facts(name))}


def _facts(name: str) -> HelperFacts | None:
    path = next(filter(None, map(shutil.which, (name, *PLACES.get(name, ())))), None)
    if path is None:
        return None
    try:
        # What it ends with says nothing: some end their help as an error.
        shown = subprocess.run(
            [path, "--help"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_LIMIT,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return HelperFacts(path=path, options=[])
    text = shown.stdout.decode(errors="replace")
    return HelperFacts(path=path, options=sorted(set(re.findall(_OPTION, text))))
