"""Where the time of a command goes: what Python imports for it, by package."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence

_LINE = re.compile(r"import time:\s+([0-9]+) \|\s+[0-9]+ \| +(\S+)")


def import_times(words: Sequence[str], most: int = 8) -> str:
    """Milliseconds by top-level package, the largest first, of ``python -X importtime``.

    :param words: the arguments of ``sevlaunch``.
    """
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "sevlaunch", *words], capture_output=True, text=True, check=True
    )
    times: Counter[str] = Counter()
    for microseconds, module in _LINE.findall(done.stderr):
        times[module.partition(".")[0]] += int(microseconds)
    shown = ", ".join(f"{package} {time / 1000:.0f}" for package, time in times.most_common(most))
    return f"{words[0]}: imports take {times.total() / 1000:.0f} ms: {shown}"
