"""Checks of memory: the limit on locking, the cgroup's limit, huge pages. With a profile, its plan has the numbers."""

from __future__ import annotations

from sevlaunch.doctor.tree import ANY, LOCKERS, HostCheck, Judgement, ok, unknown, warning
from sevlaunch.host.model import Host
from sevlaunch.units import mebibytes

# The smallest guest that a Linux boots in.
_SMALL_GUEST = 512 << 20


def _memory(host: Host) -> Judgement:
    memory = host.memory
    return ok(f"{mebibytes(memory.available)} of {mebibytes(memory.total)} available")


def _memlock(host: Host) -> Judgement:
    memory = host.memory
    if memory.can_raise_memlock:
        return ok("this user may lock any amount (CAP_IPC_LOCK or CAP_SYS_RESOURCE)")
    if memory.memlock_hard is None:
        return ok("unlimited")
    limit = mebibytes(memory.memlock_hard)
    if memory.memlock_hard < _SMALL_GUEST:
        return warning(
            f"{limit}: no SEV guest fits, except on huge pages",
            f"write '{host.user} hard memlock unlimited' into /etc/security/limits.conf and log in anew; or "
            "LimitMEMLOCK=infinity in a systemd unit; or use memory: {hugepages: 2M}",
        )
    return ok(f"{limit}; sevlaunch render PROFILE --format explain counts what a guest needs")


def _cgroup(host: Host) -> Judgement:
    cgroup = host.memory.cgroup
    if cgroup.limit is not None:
        return warning(
            f"{mebibytes(cgroup.limit)} ({cgroup.limited_by}): a guest that needs more is killed",
            f"raise it: echo max > {cgroup.limited_by}, or MemoryMax= in the systemd unit",
        )
    return ok("no limit")


def _own_cgroup(host: Host) -> Judgement:
    cgroup = host.memory.cgroup
    if cgroup.systemd:
        return ok(f"a scope of systemd ({cgroup.systemd})")
    if cgroup.parent:
        return ok(cgroup.parent)
    if not cgroup.parent_problem:
        return unknown("not looked at")
    return warning(
        cgroup.parent_problem,
        "memory.hard_limit needs a delegated cgroup v2: run as root, in a systemd unit with Delegate=memory, or "
        "under systemd-run --user --scope -p Delegate=memory",
    )


def _huge_pages(host: Host) -> Judgement:
    memory = host.memory
    if not memory.hugepages_total:
        return unknown("the kernel tells of none", "use a kernel with CONFIG_HUGETLBFS for memory.hugepages")
    counts = ", ".join(
        f"{memory.hugepages_free.get(size, 0)} of {total} free of {size}"
        for size, total in memory.hugepages_total.items()
    )
    if len(memory.nodes) > 1:
        counts += "; " + ", ".join(
            f"node {node}: {', '.join(f'{pages[size]} of {size}' for size in memory.hugepages_total if size in pages)}"
            for node, pages in memory.nodes.items()
        )
    return ok(counts)


MEMORY = HostCheck(
    "memory",
    "memory",
    _memory,
    "The memory of an encrypted guest can't be shared or swapped: it is all taken.",
    concerns=ANY,
    children=(
        HostCheck(
            "memory.lock",
            "limit on locking",
            _memlock,
            "Memory of a SEV guest is locked, so that it is not swapped (RLIMIT_MEMLOCK).",
            concerns=LOCKERS,
        ),
        HostCheck("memory.cgroup", "limit of the cgroup", _cgroup, "The kernel kills a guest that goes over it."),
        HostCheck("memory.own_cgroup", "cgroup for a guest", _own_cgroup, "memory.hard_limit makes one for QEMU."),
        HostCheck(
            "memory.hugepages",
            "huge pages",
            _huge_pages,
            "memory.hugepages takes them instead of locking; they are never swapped.",
        ),
    ),
)
