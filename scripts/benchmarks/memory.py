"""A guest of 8 GiB with locked memory: from the start of QEMU to its QMP, with and without prealloc."""

from __future__ import annotations

import sys
from functools import partial

from benchmarks.measuring import MEBIBYTE, PLAIN, Candidate, Result, Setting, Target, alternate, summarise
from benchmarks.starts import bare
from sevlaunch.host.probe import probe_host
from sevlaunch.plan import resolve
from sevlaunch.profile.loader import load

SIZE = 8 << 30
ALONE, FILLED = "8 GiB locked", "8 GiB locked, prealloc: auto"


def memory(setting: Setting) -> Result:
    """Both are sevlaunch's own command lines; only memory.prealloc differs."""
    host = probe_host(setting.qemu)
    free, needed = (host.memory.available or 0) // MEBIBYTE, SIZE // MEBIBYTE + 2048
    if free < needed:
        print(f"memory is left out: it needs {needed} MiB of free memory, found {free}", file=sys.stderr)
        return Result(())
    candidates: dict[str, Candidate] = {}
    for name, prealloc in ((ALONE, "false"), (FILLED, "auto")):
        overrides = [f"memory={{size: {SIZE}, lock: true, prealloc: {prealloc}}}", "accel=tcg", "networks=[]"]
        overrides.append(f"firmware={{image: {setting.firmware}}}")
        candidates[name] = partial(bare, resolve(load(PLAIN, overrides=overrides), host))
    times = alternate(candidates, setting.rounds)
    return Result(summarise(times, {FILLED: [Target(ALONE, ratio=0.6)]}))
