"""Guest memory: its backend, that it is not swapped, and what limits QEMU's memory."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from sevlaunch.plan.context import Context
from sevlaunch.plan.footprint import Footprint
from sevlaunch.plan.memory_limits import MemoryLimit, check_host, hard_limit, lock_limit
from sevlaunch.plan.needs import Needs
from sevlaunch.plan.option import Choice, Option, Parameter, fact, rule
from sevlaunch.plan.part import Part
from sevlaunch.units import MEBIBYTE, PAGE_SIZES, huge_pages_folder, mebibytes

# QEMU's util/oslib-posix.c, MAX_MEM_PREALLOC_THREAD_COUNT.
MAX_PREALLOC_THREADS = 16


class Backend(Struct, frozen=True):
    """An object of QEMU's that holds guest memory: all of it, or that of a NUMA node.

    ``hosts``: NUMA nodes of the host that it comes from; none: any.
    """

    name: str
    size: Choice[int]
    hosts: tuple[Choice[int], ...]


class Node(Struct, frozen=True):
    """A NUMA node that the guest sees; ``cpus`` as ranges, ``distances`` to each node, or none: as QEMU has them."""

    cpus: tuple[Choice[str], ...]
    distances: tuple[Choice[int], ...]


class MemoryPlan(Part, frozen=True, kw_only=True):
    """``size`` in bytes; ``lock_limit`` is what RLIMIT_MEMLOCK has to allow, None if nothing is locked or pinned.

    ``kind``: of QEMU's objects. ``backends``: one, or one for each of ``nodes``. ``hugepages``: their size, such as 2M.
    """

    size: Choice[int]
    kind: Choice[str]
    backends: tuple[Backend, ...]
    nodes: tuple[Node, ...]
    hugepages: Choice[str] | None
    share: Choice[bool] | None
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
        """The backend, where it is the only one: nodes name theirs themselves."""
        if not self.nodes:
            yield Parameter("memory-backend", self.backends[0].name, rule("the memory backend below"))

    def options(self) -> Iterator[Option]:
        """-m, the backends, -numa, and -overcommit."""
        yield Option("-m", (_in_mebibytes(self.size).parameter("size"),))
        for backend in self.backends:
            yield Option("-object", (self.kind.parameter(""), *self._properties(backend)))
        for number, node in enumerate(self.nodes):
            backend = self.backends[number]
            yield Option(
                "-numa",
                (
                    Parameter("", "node", backend.size.reason),
                    Parameter("nodeid", str(number), rule("its place in the list")),
                    *(cpus.parameter("cpus") for cpus in node.cpus),
                    Parameter("memdev", backend.name, rule("its memory")),
                ),
            )
        for source, node in enumerate(self.nodes):
            for destination, distance in enumerate(node.distances):
                ends = (("", "dist"), ("src", str(source)), ("dst", str(destination)))
                pair = (Parameter(key, value, distance.reason) for key, value in ends)
                yield Option("-numa", (*pair, distance.parameter("val")))
        if self.lock.value:
            yield Option("-overcommit", (self.lock.parameter("mem-lock"),))

    def _properties(self, backend: Backend) -> Iterator[Parameter]:
        yield Parameter("id", backend.name, rule("name of the memory backend"))
        yield _in_mebibytes(backend.size).parameter("size")
        if self.hugepages:
            yield Parameter("hugetlb", "on", self.hugepages.reason)
            yield self.hugepages.parameter("hugetlbsize")
        if self.share:
            yield self.share.parameter("share")
        for host in backend.hosts:
            yield host.parameter("host-nodes")
        if backend.hosts:
            yield Parameter("policy", "bind", backend.hosts[0].reason)
        if self.prealloc.value:
            yield self.prealloc.parameter("prealloc")
            yield self.prealloc_threads.parameter("prealloc-threads")


def _in_mebibytes(size: Choice[int]) -> Choice[str]:
    return Choice(f"{size.value // MEBIBYTE}M", size.reason)


def resolve_memory(context: Context, accel: str) -> MemoryPlan:
    """Memory for the profile, with the accelerator that was chosen."""
    memory = context.profile.memory
    lock = _lock(context)
    check_host(context, accel, lock.value)
    _check_huge_pages(context)
    _check_nodes(context)
    shared = Choice(True, rule("a helper program maps guest memory"))
    threads = max(1, min(context.host.cpu.count, MAX_PREALLOC_THREADS))
    return MemoryPlan(
        size=context.choice(memory.size, "memory", "size"),
        kind=_kind(context),
        backends=tuple(_backends(context)),
        nodes=tuple(_nodes(context)),
        hugepages=context.choice_or_none(memory.hugepages, "memory", "hugepages"),
        share=shared if context.profile.shares_memory else None,
        prealloc=_prealloc(context, lock.value),
        prealloc_threads=Choice(threads, fact(f"{context.host.cpu.count} CPUs")),
        lock=lock,
        lock_limit=lock_limit(context, accel, lock.value),
        limit=hard_limit(context, accel, lock.value),
    )


def _backends(context: Context) -> Iterator[Backend]:
    memory = context.profile.memory
    common = tuple(context.choice(node, "memory", "nodes", index) for index, node in enumerate(memory.nodes))
    if not context.profile.numa:
        yield Backend("ram0", context.choice(memory.size, "memory", "size"), common)
    for number, node in enumerate(context.profile.numa):
        own = context.choice_or_none(node.host_node, "numa", number, "host_node")
        yield Backend(f"ram{number}", context.choice(node.memory, "numa", number, "memory"), (own,) if own else common)


def _nodes(context: Context) -> Iterator[Node]:
    for number, node in enumerate(context.profile.numa):
        # QEMU takes one range at a time.
        ranges = node.cpus.split(",") if node.cpus else ()
        yield Node(
            tuple(context.choice(cpus, "numa", number, "cpus") for cpus in ranges),
            tuple(
                context.choice(distance, "numa", number, "distances", index)
                for index, distance in enumerate(node.distances)
            ),
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


def _check_huge_pages(context: Context) -> None:
    size, host = context.profile.memory.hugepages, context.host.memory
    if not size:
        return
    for nodes, wanted in _by_host_nodes(context).items():
        needed = wanted // PAGE_SIZES[size]
        free = host.hugepages_free.get(size)
        where = ""
        if nodes and host.nodes:
            free = sum(host.nodes.get(str(node), {}).get(size, 0) for node in nodes)
            where = f" on NUMA node {', '.join(map(str, nodes))}"
        if free is not None and free < needed:
            folder = f"/sys/kernel/mm/hugepages/{huge_pages_folder(size)}"
            context.lack(
                f"huge pages: wanted {needed} of {size}{where}, found {free} free: {needed - free} are missing",
                hint=f"echo {needed - free} more than now into {folder}/nr_hugepages, or start the kernel with "
                f"hugepagesz={size} hugepages={needed}",
            )


def _by_host_nodes(context: Context) -> dict[tuple[int, ...], int]:
    """Bytes of memory, by the nodes of the host that they come from; none: any."""
    found: dict[tuple[int, ...], int] = {}
    for backend in _backends(context):
        nodes = tuple(host.value for host in backend.hosts)
        found[nodes] = found.get(nodes, 0) + backend.size.value
    return found


def _check_nodes(context: Context) -> None:
    known = context.host.memory.nodes
    for nodes in _by_host_nodes(context):
        for node in nodes:
            if known and str(node) not in known:
                context.lack(
                    f"memory is to come from the NUMA node {node}; this host has {', '.join(known)}",
                    hint="see numactl --hardware",
                )


def _kind(context: Context) -> Choice[str]:
    if context.profile.memory.hugepages:
        return Choice("memory-backend-memfd", rule("huge pages without a mounted hugetlbfs"))
    if context.profile.shares_memory:
        return Choice("memory-backend-memfd", rule("memory that a helper program can map"))
    return Choice("memory-backend-ram", rule("ordinary memory"))


def _prealloc(context: Context, lock: bool) -> Choice[bool]:
    wanted = context.profile.memory.prealloc
    fill = wanted is True or (wanted == "auto" and (lock or context.profile.memory.hugepages is not None))
    reason = "filling memory with several threads is quicker than locking it page by page" if fill else "default"
    return context.choice(fill, "memory", "prealloc", default=reason)
