"""Runs changed files through their commands, in this one process: ``KIND COUNT SEED FOLDER``; prints what was wrong.

What is printed is JSON: the number of runs that ended with each exit code, and of each finding the seed that makes it
again, with the command. A run may take some seconds of the processor's time, and the process the memory it was given.
"""

from __future__ import annotations

import io
import json
import resource
import signal
import sys
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from random import Random
from typing import Any

from sevlaunch.cli import app
from sevlaunch.cli.failures import set_format
from sevlaunch.cli.owner import verify
from tests.mutants.changes import EVIL
from tests.mutants.kinds import KINDS, Reader

CPU_SECONDS = 10
MEMORY = 2 << 30


class TooLong(BaseException):
    """A run took too much of the processor's time; nothing on the way catches it."""


def main() -> None:
    """Run what the arguments ask for."""
    kind, count, seed, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    # Each no would be searched for an explanation for seconds.
    verify.SEARCH_LIMIT = 0.01
    readers = KINDS[kind](folder)
    originals = {file: file.read_bytes() for reader in readers if (file := folder / reader.name).exists()}
    signal.signal(signal.SIGVTALRM, _too_long)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    codes: Counter[int] = Counter()
    findings: list[dict[str, Any]] = []
    for number in range(seed, seed + count):
        random = Random(f"{kind} {number}")
        reader = readers[number % len(readers)]
        file = folder / reader.name
        file.write_bytes(reader.change(reader.content, random))
        words = reader.command(folder)
        if random.random() < 0.3 and reader.words[0] != "check":
            words += ["--format", "json"]
        code, text = _run(words)
        codes[code] += 1
        if wrong := _wrong(reader, code, text):
            findings.append({"seed": number, "wrong": wrong, "words": words, "code": code, "text": text[-2000:]})
        for new in folder.glob("new*"):
            new.unlink()
        if file in originals:
            file.write_bytes(originals[file])
        else:
            file.unlink()
    used = resource.getrusage(resource.RUSAGE_SELF)
    figures = {"cpu_seconds": used.ru_utime + used.ru_stime, "peak_mib": used.ru_maxrss >> 10}
    print(json.dumps({"codes": codes, "findings": findings[:20], "found": len(findings), **figures}))


def _too_long(*_: object) -> None:
    raise TooLong


def _run(words: list[str]) -> tuple[int, str]:
    """The exit code, -1 for a run that took too long, and all that was printed."""
    output = io.StringIO()
    sys.argv = ["sevlaunch", *words]
    code = -1
    signal.setitimer(signal.ITIMER_VIRTUAL, CPU_SECONDS)
    try:
        with redirect_stdout(output), redirect_stderr(output):
            set_format(words)
            app.run()
    except SystemExit as end:
        code = int(end.code or 0)
    except TooLong:
        with suppress(TooLong):
            output.write(f"more than {CPU_SECONDS} s of the processor's time")
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return code, output.getvalue()


def _wrong(reader: Reader, code: int, text: str) -> str:
    if code not in reader.codes:
        return f"exit {code}, documented are {sorted(reader.codes)}"
    if "internal error" in text or "Traceback" in text:
        return "an internal error"
    for line in text.split("\n"):
        if not line.replace("\t", "").isprintable():
            return f"what a terminal acts on: {line!r}"
        if line.strip() in EVIL.split("\n") and line.strip() == "guest: verified" and code:
            return "a lie stands as an answer"
    return ""


if __name__ == "__main__":
    main()
