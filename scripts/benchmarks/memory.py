"""A guest of 8 GiB with locked memory: from the start of QEMU to its QMP, with and without prealloc.

Beside it, the same memory filled by one thread and by two, and nothing else: what no QEMU can be quicker than. The host
of a virtual machine takes back what is free, and takes seconds to find it again: memory is filled and freed before each
candidate, so that all of them find it there.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import partial

from benchmarks.measuring import MEBIBYTE, PLAIN, Candidate, Result, Setting, Target, alternate, missed, summarise
from benchmarks.starts import bare
from sevlaunch.host.model import Host
from sevlaunch.plan.resolve import resolve
from sevlaunch.profile.loader import load

SIZE = 8 << 30
# What QEMU locks besides the guest's memory: without KVM, a GiB for translated code.
BESIDES = 2 << 30
ALONE, FILLED = "8 GiB locked", "8 GiB locked, prealloc: auto"
FLOORS = ("8 GiB filled by one thread", "8 GiB filled by two")
# linux/mman.h
_MADV_HUGEPAGE, _MADV_POPULATE_WRITE = 14, 23


@contextmanager
def filled(size: int, threads: int) -> Iterator[None]:
    """So many bytes of memory, filled as QEMU's threads do it."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        view = ctypes.c_char.from_buffer(memory)
        start, length = ctypes.addressof(view), size // threads
        libc.madvise(start, size, _MADV_HUGEPAGE)
        with ThreadPoolExecutor(threads) as pool:
            parts = [start + number * length for number in range(threads)]
            failed = any(pool.map(lambda part: libc.madvise(part, length, _MADV_POPULATE_WRITE), parts))
        del view
        if failed:
            raise OSError(ctypes.get_errno(), "can't fill the memory")
        yield


def with_memory(size: int, candidate: Candidate) -> AbstractContextManager[None]:
    """A candidate that finds memory of so many bytes, and what QEMU takes besides, where the machine has it at hand."""
    with filled(size + BESIDES, 1):
        pass
    return candidate()


def fits(size: int, host: Host) -> bool:
    """Whether a guest of so many bytes can be measured; says so when it can't."""
    free, needed = (host.memory.available or 0) // MEBIBYTE, (size + BESIDES) // MEBIBYTE
    if free < needed:
        print(
            f"{size // MEBIBYTE} MiB are left out: they need {needed} MiB of free memory, found {free}", file=sys.stderr
        )
    return free >= needed


def memory(setting: Setting) -> Result:
    """Both are sevlaunch's own command lines; only memory.prealloc differs."""
    host = Host.probe(setting.qemu)
    if not fits(SIZE, host):
        return Result(())
    candidates: dict[str, Candidate] = {}
    for name, prealloc in ((ALONE, "false"), (FILLED, "auto")):
        overrides = [f"memory={{size: {SIZE}, lock: true, prealloc: {prealloc}}}", "accel=tcg", "networks=[]"]
        overrides.append(f"firmware={{image: {setting.firmware}}}")
        candidates[name] = partial(bare, resolve(load(PLAIN, overrides=overrides), host))
    candidates |= {floor: partial(filled, SIZE, threads) for threads, floor in enumerate(FLOORS, 1)}
    warm = {name: partial(with_memory, SIZE, candidate) for name, candidate in candidates.items()}
    # Each takes seconds.
    lines = summarise(alternate(warm, max(3, setting.rounds // 2)), {FILLED: [Target(ALONE, ratio=0.6)]})
    one, two = (line.median for line in lines if line.name in FLOORS)
    note = f"two threads fill memory in {two / one:.2f} of the time of one: no prealloc is quicker than that"
    return Result(lines, notes=(note,) if missed(lines) else ())
