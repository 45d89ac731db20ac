"""Guest memory: its backend, and that it is not swapped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sevlaunch.plan.context import Context
from sevlaunch.plan.option import Choice, Option, Parameter, fact, rule

MEBIBYTE = 1 << 20

# What QEMU maps besides guest memory, all of which mlockall() counts: code, heaps, stacks, firmware, video memory.
LOCK_OVERHEAD = 1024 * MEBIBYTE

# QEMU's util/oslib-posix.c, MAX_MEM_PREALLOC_THREAD_COUNT.
MAX_PREALLOC_THREADS = 16


@dataclass(frozen=True)
class MemoryPlan:
    """``size`` in bytes; ``lock_bytes`` is what QEMU may lock in all, 0 if nothing."""

    size: Choice[int]
    backend: tuple[Parameter, ...]
    lock: Choice[bool]
    lock_bytes: int
    machine_parameters: tuple[Parameter, ...]


def resolve_memory(context: Context) -> MemoryPlan:
    """Memory for the profile."""
    memory = context.profile.memory
    lock = _lock(context)
    lock_bytes = memory.size + LOCK_OVERHEAD if lock.value else 0
    _check_lock_limit(context, lock_bytes)
    if memory.hard_limit is not None:
        context.warn("memory.hard_limit is not applied by this version of sevlaunch: QEMU runs without a limit")
    backend = [
        _backend_type(context),
        Parameter("id", "ram0", rule("name of the memory backend")),
        context.from_profile("size", f"{memory.size // MEBIBYTE}M", "memory", "size"),
    ]
    if memory.hugepages:
        backend.append(Parameter("hugetlb", "on", context.why("memory", "hugepages")))
        backend.append(context.from_profile("hugetlbsize", memory.hugepages, "memory", "hugepages"))
    if context.profile.shares:
        backend.append(Parameter("share", "on", rule("virtiofsd maps guest memory")))
    backend += _prealloc(context, lock.value)
    return MemoryPlan(
        size=Choice(memory.size, context.why("memory", "size")),
        backend=tuple(backend),
        lock=lock,
        lock_bytes=lock_bytes,
        machine_parameters=(Parameter("memory-backend", "ram0", rule("the memory backend below")),),
    )


def memory_options(plan: MemoryPlan) -> Iterator[Option]:
    """-m, the backend, and -overcommit."""
    yield Option("-m", (Parameter("size", f"{plan.size.value // MEBIBYTE}M", plan.size.reason),))
    yield Option("-object", plan.backend)
    if plan.lock.value:
        yield Option("-overcommit", (Parameter("mem-lock", "on", plan.lock.reason),))


def _lock(context: Context) -> Choice[bool]:
    wanted = context.profile.memory.lock
    if wanted != "auto":
        return Choice(wanted, context.why("memory", "lock"))
    if context.profile.security.type not in ("sev", "sev-es"):
        return Choice(False, rule("only SEV and SEV-ES guests need locked memory"))
    if context.profile.memory.hugepages:
        return Choice(False, rule("huge pages are never swapped"))
    return Choice(True, rule("memory of a SEV guest must not be swapped: it could not be decrypted at another place"))


def _check_lock_limit(context: Context, lock_bytes: int) -> None:
    limits = context.host.memory
    if (
        lock_bytes
        and limits.memlock_hard is not None
        and lock_bytes > limits.memlock_hard
        and not limits.can_raise_memlock
    ):
        context.lack(
            f"locking {lock_bytes // MEBIBYTE} MiB of memory is over this user's limit of "
            f"{limits.memlock_hard // MEBIBYTE} MiB (RLIMIT_MEMLOCK)",
            hint=f"grant it with '{context.host.user} hard memlock {lock_bytes // 1024}' in /etc/security/limits.conf, "
            f"with LimitMEMLOCK={lock_bytes} in a systemd unit, or use memory: {{hugepages: 2M}}",
        )


def _backend_type(context: Context) -> Parameter:
    if context.profile.memory.hugepages:
        return Parameter("", "memory-backend-memfd", rule("huge pages without a mounted hugetlbfs"))
    if context.profile.shares:
        return Parameter("", "memory-backend-memfd", rule("memory that virtiofsd can map"))
    return Parameter("", "memory-backend-ram", rule("ordinary memory"))


def _prealloc(context: Context, locked: bool) -> Iterator[Parameter]:
    wanted = context.profile.memory.prealloc
    fill = wanted is True or (wanted == "auto" and (locked or context.profile.memory.hugepages is not None))
    if not fill:
        return
    reason = context.why(
        "memory", "prealloc", default="filling memory with several threads is quicker than locking it page by page"
    )
    yield Parameter("prealloc", "on", reason)
    threads = max(1, min(context.host.cpu.count, MAX_PREALLOC_THREADS))
    yield Parameter("prealloc-threads", str(threads), fact(f"{context.host.cpu.count} CPUs"))
