"""Guest memory: its backend, that it is not swapped, and what limits QEMU's memory."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from sevlaunch.plan.context import Context
from sevlaunch.plan.footprint import MEBIBYTE, Footprint, charged, locked, pinned
from sevlaunch.plan.option import Choice, Option, Parameter, fact, rule
from sevlaunch.units import mebibytes

PAGE_SIZES = {"2M": 2 * MEBIBYTE, "1G": 1024 * MEBIBYTE}

# QEMU's util/oslib-posix.c, MAX_MEM_PREALLOC_THREAD_COUNT.
MAX_PREALLOC_THREADS = 16


class MemoryLimit(Struct, frozen=True):
    """A limit on all that QEMU takes: a cgroup below ``parent`` (a folder), or else a scope that systemd makes."""

    size: Choice[int]
    counted: Footprint
    parent: str
    scope: tuple[str, ...]


class MemoryPlan(Struct, frozen=True):
    """``size`` in bytes; ``lock_limit`` is what RLIMIT_MEMLOCK has to allow, None if nothing is locked or pinned."""

    size: Choice[int]
    backend: tuple[Parameter, ...]
    lock: Choice[bool]
    lock_limit: Footprint | None
    limit: MemoryLimit | None
    machine_parameters: tuple[Parameter, ...]

    @property
    def lock_bytes(self) -> int:
        """The limit on locking that QEMU needs, in bytes; 0: none."""
        return self.lock_limit.total if self.lock_limit else 0

    @property
    def environment(self) -> dict[str, str]:
        """Variables for QEMU."""
        # Each thread's malloc arena maps 64 MiB of addresses, and all that is mapped counts as locked: mallopt(3).
        return {"MALLOC_ARENA_MAX": "1"} if self.lock.value else {}


def resolve_memory(context: Context, accel: str) -> MemoryPlan:
    """Memory for the profile, with the accelerator that was chosen."""
    memory = context.profile.memory
    lock = _lock(context)
    lock_limit = _lock_limit(context, accel, lock.value)
    if lock_limit:
        _check_lock_limit(context, lock_limit)
    limit = _limit(context, accel, lock.value)
    _check_cgroup(context, charged(context, accel, lock.value))
    _check_huge_pages(context)
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
    backend += [*_binding(context), *_prealloc(context, lock.value)]
    return MemoryPlan(
        size=Choice(memory.size, context.why("memory", "size")),
        backend=tuple(backend),
        lock=lock,
        lock_limit=lock_limit,
        limit=limit,
        machine_parameters=(Parameter("memory-backend", "ram0", rule("the memory backend below")),),
    )


def memory_options(plan: MemoryPlan) -> Iterator[Option]:
    """-m, the backend, and -overcommit."""
    yield Option("-m", (Parameter("size", f"{plan.size.value // MEBIBYTE}M", plan.size.reason),))
    yield Option("-object", plan.backend)
    if plan.lock.value:
        yield Option("-overcommit", (Parameter("mem-lock", "on", plan.lock.reason),))


def explain_memory(plan: MemoryPlan) -> Iterator[str]:
    """Every number behind the limits, one line each."""
    if plan.lock_limit:
        kind = "locked memory" if plan.lock.value else "memory that KVM pins"
        yield f"{kind}, RLIMIT_MEMLOCK: {plan.lock_limit}"
    for name, value in plan.environment.items():
        yield f"environment: {name}={value}: one malloc arena, not 64 MiB of locked addresses for each thread"
    if plan.limit:
        where = f"cgroup below {plan.limit.parent}" if plan.limit.parent else "scope of systemd"
        yield f"memory limit: {mebibytes(plan.limit.size.value)}, {where} ({plan.limit.size.reason})"
        yield f"counted for the limit: {plan.limit.counted}"


def _lock(context: Context) -> Choice[bool]:
    wanted = context.profile.memory.lock
    if wanted != "auto":
        return Choice(wanted, context.why("memory", "lock"))
    if not context.profile.security.locks_memory:
        return Choice(False, rule("only SEV and SEV-ES guests need locked memory"))
    if context.profile.memory.hugepages:
        return Choice(False, rule("huge pages are never swapped"))
    return Choice(True, rule("memory of a SEV guest must not be swapped: it could not be decrypted at another place"))


def _lock_limit(context: Context, accel: str, lock: bool) -> Footprint | None:
    if lock:
        return locked(context, accel)
    # A rehearsal's memory is pinned by nobody.
    if context.profile.security.locks_memory and not context.rehearse:
        return pinned(context)
    return None


def _check_lock_limit(context: Context, need: Footprint) -> None:
    limits = context.host.memory
    # CAP_IPC_LOCK, which makes the limit meaningless, does not outlast the change to another user.
    may_raise = limits.can_set_limits if context.other_user else limits.can_raise_memlock
    if limits.memlock_hard is None or need.total <= limits.memlock_hard or may_raise:
        return
    user, size = context.other_user or context.host.user, need.total
    if not context.profile.security.encrypted:
        huge = "or use memory: {hugepages: 2M}, which needs no locking"
    elif context.profile.memory.hugepages:
        huge = "or start it as root"
    else:
        huge = f"or use memory: {{hugepages: 2M}}, of which KVM still pins {mebibytes(pinned(context).total)}"
    context.lack(
        f"locking {mebibytes(size)} of memory is over this user's limit of {mebibytes(limits.memlock_hard)} "
        f"(RLIMIT_MEMLOCK): {need}",
        hint=f"grant it with '{user} hard memlock {size // 1024}' in /etc/security/limits.conf, with "
        f"LimitMEMLOCK={size} in a systemd unit, {huge}",
    )


def _limit(context: Context, accel: str, lock: bool) -> MemoryLimit | None:
    wanted = context.profile.memory.hard_limit
    if wanted is None:
        return None
    counted = charged(context, accel, lock)
    if wanted == "auto":
        size = Choice(counted.total, rule("as much as QEMU can take, counted"))
    else:
        size = Choice(wanted, context.why("memory", "hard_limit"))
        if wanted < counted.total:
            context.refuse(
                f"a limit of {mebibytes(wanted)} would kill the guest: QEMU can take {counted}",
                "memory",
                "hard_limit",
                hint=f"use hard_limit: auto, or at least {mebibytes(counted.total).replace(' MiB', 'M')}",
            )
    cgroup = context.host.memory.cgroup
    scope: tuple[str, ...] = ()
    if cgroup.systemd:
        mode = ("--user",) if cgroup.systemd == "user" else ()
        properties = ("-p", f"MemoryMax={size.value}", "-p", "MemorySwapMax=0")
        scope = ("systemd-run", *mode, "--scope", "--quiet", "--collect", *properties, "--")
    elif not cgroup.parent:
        context.lack(
            f"memory.hard_limit needs a cgroup for QEMU: {cgroup.parent_problem or 'this host was saved without it'}",
            hint="run it under systemd, or as root with cgroup v2; or leave hard_limit out and limit the whole of it "
            f"from outside (MemoryMax={size.value})",
        )
    return MemoryLimit(size, counted, "" if scope else cgroup.parent, scope)


def _check_cgroup(context: Context, counted: Footprint) -> None:
    cgroup = context.host.memory.cgroup
    if cgroup.limit is not None and cgroup.limit < counted.total:
        context.warn(
            f"the memory limit of {mebibytes(cgroup.limit)} in {cgroup.limited_by} can kill the guest, which can take "
            f"{counted}"
        )


def _check_huge_pages(context: Context) -> None:
    memory, host = context.profile.memory, context.host.memory
    if not memory.hugepages:
        return
    needed = memory.size // PAGE_SIZES[memory.hugepages]
    free = host.hugepages_free.get(memory.hugepages)
    where = ""
    if memory.nodes and host.nodes:
        free = sum(host.nodes.get(str(node), {}).get(memory.hugepages, 0) for node in memory.nodes)
        where = f" on NUMA node {', '.join(map(str, memory.nodes))}"
    if free is not None and free < needed:
        kilobytes = PAGE_SIZES[memory.hugepages] >> 10
        context.lack(
            f"huge pages: wanted {needed} of {memory.hugepages}{where}, found {free} free: {needed - free} are missing",
            hint=f"echo {needed - free} more than now into /sys/kernel/mm/hugepages/hugepages-{kilobytes}kB/"
            f"nr_hugepages, or start the kernel with hugepagesz={memory.hugepages} hugepages={needed}",
        )


def _backend_type(context: Context) -> Parameter:
    if context.profile.memory.hugepages:
        return Parameter("", "memory-backend-memfd", rule("huge pages without a mounted hugetlbfs"))
    if context.profile.shares:
        return Parameter("", "memory-backend-memfd", rule("memory that virtiofsd can map"))
    return Parameter("", "memory-backend-ram", rule("ordinary memory"))


def _binding(context: Context) -> Iterator[Parameter]:
    nodes, known = context.profile.memory.nodes, context.host.memory.nodes
    for index, node in enumerate(nodes):
        if known and str(node) not in known:
            context.lack(
                f"memory.nodes asks for the NUMA node {node}; this host has {', '.join(known)}",
                hint="see numactl --hardware",
            )
        yield context.from_profile("host-nodes", node, "memory", "nodes", index)
    if nodes:
        yield Parameter("policy", "bind", context.why("memory", "nodes"))


def _prealloc(context: Context, lock: bool) -> Iterator[Parameter]:
    wanted = context.profile.memory.prealloc
    fill = wanted is True or (wanted == "auto" and (lock or context.profile.memory.hugepages is not None))
    if not fill:
        return
    reason = context.why(
        "memory", "prealloc", default="filling memory with several threads is quicker than locking it page by page"
    )
    yield Parameter("prealloc", "on", reason)
    threads = max(1, min(context.host.cpu.count, MAX_PREALLOC_THREADS))
    yield Parameter("prealloc-threads", str(threads), fact(f"{context.host.cpu.count} CPUs"))
