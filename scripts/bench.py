"""The benchmark: sevlaunch beside a bare QEMU, libvirt and sev-snp-measure, in turns, with its targets."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from benchmarks.against import against
from benchmarks.commands import commands
from benchmarks.digests import digests
from benchmarks.growth import growth
from benchmarks.many import many
from benchmarks.measuring import RUNTIME, Result, Setting, print_result
from benchmarks.memory import memory
from benchmarks.starts import rehearsal, start

from sevlaunch.host.processor import cpu_facts
from sevlaunch.host.system import System

# scripts/test-tools brings it.
AMDSEV = Path.home() / ".cache/sevlaunch/tools/ovmf-amdsev/OVMF.amdsev.fd"

SECTIONS: dict[str, Callable[[Setting], Result]] = {
    "commands": commands,
    "start": start,
    "rehearsal": rehearsal,
    "many": many,
    "memory": memory,
    "digests": digests,
}
ON_REQUEST = {"growth": growth}


def main() -> int:
    """Run the sections; 0 when every target is met, 1 when not."""
    every = {**SECTIONS, **ON_REQUEST}
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"{', '.join(every)}; default: all but growth")
    parser.add_argument("--qemu", default="auto", help="the QEMU binary")
    parser.add_argument("--firmware", type=Path, default=AMDSEV, help="an OVMF image for SEV-ES and SNP")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--json", type=Path, metavar="FILE", help="renew the figures there, too")
    parser.add_argument("--libvirt", action="store_true", help="install libvirt, if it is not there, to compare with")
    parser.add_argument("--against", metavar="REV", help="measure the commands of this revision, too, and compare")
    options = parser.parse_args()
    unknown = set(options.sections) - set(every)
    if unknown:
        parser.error(f"no section {', '.join(sorted(unknown))}; there are {', '.join(every)}")
    setting = Setting(options.qemu, options.firmware, options.rounds)
    results = {}
    print(f"{cpu_facts(System()).name}, Python {platform.python_version()}\n")
    with ExitStack() as folders:
        for variable, place in (("XDG_RUNTIME_DIR", RUNTIME), ("XDG_STATE_HOME", None)):
            folder = tempfile.TemporaryDirectory(prefix="sevlaunch-bench-", dir=place)
            os.environ[variable] = folders.enter_context(folder)
        if options.against:
            print_result("against", against(options.against, setting))
        for name in options.sections or (() if options.against else SECTIONS):
            results[name] = every[name](setting)
            print_result(name, results[name])
    if options.json:
        # The sections that were not run keep the figures that they have there.
        known = json.loads(options.json.read_text()) if options.json.exists() else {}
        document = known | {name: asdict(result) for name, result in results.items()}
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    return 0 if all(verdict.met for result in results.values() for verdict in result.verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
