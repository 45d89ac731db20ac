"""A guest of 8 GiB with locked memory: from the start of QEMU to its QMP, with and without prealloc.

Beside it, the same memory filled by one thread and by two, and nothing else: what no QEMU can be quicker than.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

from benchmarks.measuring import MEBIBYTE, PLAIN, Candidate, Result, Setting, Target, alternate, summarise
from benchmarks.starts import bare
from sevlaunch.host.probe import probe_host
from sevlaunch.plan import resolve
from sevlaunch.profile.loader import load

SIZE = 8 << 30
ALONE, FILLED = "8 GiB locked", "8 GiB locked, prealloc: auto"
# linux/mman.h
_MADV_HUGEPAGE, _MADV_POPULATE_WRITE = 14, 23


@contextmanager
def filled(threads: int) -> Iterator[None]:
    """As much memory, filled as QEMU's threads do it."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    with mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        view = ctypes.c_char.from_buffer(memory)
        start, length = ctypes.addressof(view), SIZE // threads
        libc.madvise(start, SIZE, _MADV_HUGEPAGE)
        with ThreadPoolExecutor(threads) as pool:
            parts = [start + number * length for number in range(threads)]
            failed = any(pool.map(lambda part: libc.madvise(part, length, _MADV_POPULATE_WRITE), parts))
        del view
        if failed:
            raise OSError(ctypes.get_errno(), "can't fill the memory")
        yield


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
    candidates |= {f"8 GiB filled, threads: {threads}": partial(filled, threads) for threads in (1, 2)}
    times = alternate(candidates, setting.rounds)
    return Result(summarise(times, {FILLED: [Target(ALONE, ratio=0.6)]}))
