"""Where the time of a command goes: what Python imports for it, by the package that wants it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence

# Microseconds of the module alone and with all that it imports; two spaces more for each level that it is below.
_LINE = re.compile(r"import time: +([0-9]+) \| +[0-9]+ \| ( *)(\S+)")


def import_times(words: Sequence[str], most: int = 8) -> str:
    """Milliseconds by package, the largest first, of ``python -X importtime``.

    A module of Python itself counts for the package that is the first to import it.

    :param words: the arguments of ``sevlaunch``.
    """
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "sevlaunch", *words], capture_output=True, text=True, check=True
    )
    times = by_package(done.stderr)
    largest = [(package, f"{time / 1000:.0f}") for package, time in times.most_common(most)]
    shown = ", ".join(f"{package} {time}" for package, time in largest if time != "0")
    return f"{' '.join(words[:2])}: imports take {times.total() / 1000:.0f} ms: {shown}"


def by_package(report: str) -> Counter[str]:
    """Microseconds by package in what ``python -X importtime`` writes to stderr."""
    times: Counter[str] = Counter()
    above: list[tuple[int, str]] = []
    # A module is listed after those that it imports.
    for microseconds, indent, module in reversed(_LINE.findall(report)):
        while above and above[-1][0] >= len(indent):
            above.pop()
        package = module.partition(".")[0]
        if package in sys.stdlib_module_names:
            package = above[-1][1] if above else "python"
        above.append((len(indent), package))
        times[package] += int(microseconds)
    return times
