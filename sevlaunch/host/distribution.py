"""Which distribution this is: the packages that help are its own."""

from __future__ import annotations

import shlex

from sevlaunch.host.facts import Distribution
from sevlaunch.host.system import System

# os-release(5): the second is for where the first is missing.
_FILES = ("/etc/os-release", "/usr/lib/os-release")


def distribution_of(system: System) -> Distribution:
    """What os-release(5) says, or nothing where there is none."""
    text = next((found for found in map(system.text, _FILES) if found), "")
    values = dict(_assignments(text))
    return Distribution(
        id=values.get("ID", ""),
        like=values.get("ID_LIKE", "").split(),
        version=values.get("VERSION_ID", ""),
        name=values.get("PRETTY_NAME", ""),
    )


def _assignments(text: str) -> list[tuple[str, str]]:
    """The variables of a file that a shell could read; lines that none could are passed over."""
    found = []
    for line in text.splitlines():
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            continue
        name, equals, value = words[0].partition("=") if len(words) == 1 else ("", "", "")
        if equals:
            found.append((name, value))
    return found
