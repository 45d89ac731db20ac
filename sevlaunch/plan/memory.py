"""Guest memory: its backend, that it is not swapped, and what limits QEMU's memory."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from sevlaunch.plan.context import Context
from sevlaunch.plan.footprint import Footprint, charged, locked, pinned
from sevlaunch.plan.needs import Needs
from sevlaunch.plan.option import Choice, Option, Parameter, fact, rule
from sevlaunch.plan.part import Part
from sevlaunch.units import MEBIBYTE, PAGE_SIZES, huge_pages_folder, mebibytes

# QEMU's util/oslib-posix.c, MAX_MEM_PREALLOC_THREAD_COUNT.
MAX_PREALLOC_THREADS = 16


class MemoryLimit(Struct, frozen=True):
    """A limit on all that QEMU takes: a cgroup below ``parent`` (a folder), or else a scope that systemd makes."""

    size: Choice[int]
    counted: Footprint
    parent: str
    scope: tuple[str, ...]


class MemoryPlan(Part, frozen=True, kw_only=True):
    """``size`` in bytes; ``lock_limit`` is what RLIMIT_MEMLOCK has to allow, None if nothing is locked or pinned.

    ``backend``: the type of QEMU's object. ``hugepages``: their size, such as 2M. ``nodes``: NUMA nodes of the host.
    """

    size: Choice[int]
    backend: Choice[str]
    hugepages: Choice[str] | None
    share: Choice[bool] | None
    nodes: tuple[Choice[int], ...]
    prealloc: Choice[bool]
    prealloc_threads: Choice[int]
    lock: Choice[bool]
    lock_limit: Footprint | None
    limit: MemoryLimit | None

    @property
    def lock_bytes(self) -> int:
        """The limit on locking that QEMU needs, in bytes; 0: none."""
        return self.lock_limit.total if self.lock_limit else 0

    @property
    def needs(self) -> Needs:
        """What may be locked, what may be taken, and that memory is taken sparingly where all that is mapped counts."""
        # Each thread's malloc arena maps 64 MiB of addresses, and all that is mapped counts as locked: mallopt(3).
        one_arena = (("MALLOC_ARENA_MAX", "1"),)
        return Needs(
            locked_memory=self.lock_bytes,
            memory_limit=self.limit.size.value if self.limit else None,
            environment=one_arena if self.lock.value else (),
        )

    def machine_properties(self) -> Iterator[Parameter]:
        """The backend."""
        yield Parameter("memory-backend", "ram0", rule("the memory backend below"))

    def options(self) -> Iterator[Option]:
        """-m, the backend, and -overcommit."""
        size = Choice(f"{self.size.value // MEBIBYTE}M", self.size.reason)
        yield Option("-m", (size.parameter("size"),))
        identity = Parameter("id", "ram0", rule("name of the memory backend"))
        yield Option("-object", (self.backend.parameter(""), identity, size.parameter("size"), *self._properties()))
        if self.lock.value:
            yield Option("-overcommit", (self.lock.parameter("mem-lock"),))

    def _properties(self) -> Iterator[Parameter]:
        if self.hugepages:
            yield Parameter("hugetlb", "on", self.hugepages.reason)
            yield self.hugepages.parameter("hugetlbsize")
        if self.share:
            yield self.share.parameter("share")
        for node in self.nodes:
            yield node.parameter("host-nodes")
        if self.nodes:
            yield Parameter("policy", "bind", self.nodes[0].reason)
        if self.prealloc.value:
            yield self.prealloc.parameter("prealloc")
            yield self.prealloc_threads.parameter("prealloc-threads")


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
    _check_nodes(context)
    shared = Choice(True, rule("virtiofsd maps guest memory"))
    threads = max(1, min(context.host.cpu.count, MAX_PREALLOC_THREADS))
    return MemoryPlan(
        size=context.choice(memory.size, "memory", "size"),
        backend=_backend(context),
        hugepages=context.choice_or_none(memory.hugepages, "memory", "hugepages"),
        share=shared if context.profile.shares else None,
        nodes=tuple(context.choice(node, "memory", "nodes", index) for index, node in enumerate(memory.nodes)),
        prealloc=_prealloc(context, lock.value),
        prealloc_threads=Choice(threads, fact(f"{context.host.cpu.count} CPUs")),
        lock=lock,
        lock_limit=lock_limit,
        limit=limit,
    )


def explain_memory(plan: MemoryPlan) -> Iterator[str]:
    """Every number behind the limits, one line each."""
    if plan.lock_limit:
        kind = "locked memory" if plan.lock.value else "memory that KVM pins"
        yield f"{kind}, RLIMIT_MEMLOCK: {plan.lock_limit}"
    for name, value in plan.needs.environment:
        yield f"environment: {name}={value}: one malloc arena, not 64 MiB of locked addresses for each thread"
    if plan.limit:
        where = f"cgroup below {plan.limit.parent}" if plan.limit.parent else "scope of systemd"
        yield f"memory limit: {mebibytes(plan.limit.size.value)}, {where} ({plan.limit.size.reason})"
        yield f"counted for the limit: {plan.limit.counted}"


def _lock(context: Context) -> Choice[bool]:
    wanted = context.profile.memory.lock
    if wanted != "auto":
        return context.choice(wanted, "memory", "lock")
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
        size = context.choice(wanted, "memory", "hard_limit")
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
        folder = f"/sys/kernel/mm/hugepages/{huge_pages_folder(memory.hugepages)}"
        context.lack(
            f"huge pages: wanted {needed} of {memory.hugepages}{where}, found {free} free: {needed - free} are missing",
            hint=f"echo {needed - free} more than now into {folder}/nr_hugepages, or start the kernel with "
            f"hugepagesz={memory.hugepages} hugepages={needed}",
        )


def _check_nodes(context: Context) -> None:
    known = context.host.memory.nodes
    for node in context.profile.memory.nodes:
        if known and str(node) not in known:
            context.lack(
                f"memory.nodes asks for the NUMA node {node}; this host has {', '.join(known)}",
                hint="see numactl --hardware",
            )


def _backend(context: Context) -> Choice[str]:
    if context.profile.memory.hugepages:
        return Choice("memory-backend-memfd", rule("huge pages without a mounted hugetlbfs"))
    if context.profile.shares:
        return Choice("memory-backend-memfd", rule("memory that virtiofsd can map"))
    return Choice("memory-backend-ram", rule("ordinary memory"))


def _prealloc(context: Context, lock: bool) -> Choice[bool]:
    wanted = context.profile.memory.prealloc
    fill = wanted is True or (wanted == "auto" and (lock or context.profile.memory.hugepages is not None))
    reason = "filling memory with several threads is quicker than locking it page by page" if fill else "default"
    return context.choice(fill, "memory", "prealloc", default=reason)
