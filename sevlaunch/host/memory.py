"""Memory: how much there is, huge pages by size and NUMA node, the limit on locking, the cgroup's limit."""

from __future__ import annotations

import os
import resource
import shutil
from pathlib import Path, PurePosixPath
from typing import Literal

from msgspec.structs import replace

from sevlaunch.host.facts import CgroupFacts, MemoryFacts
from sevlaunch.host.folders import base_folder
from sevlaunch.host.system import System
from sevlaunch.units import PAGE_SIZES, huge_pages_folder, parse_ranges

# capability numbers: include/uapi/linux/capability.h
_CAP_IPC_LOCK = 14
_CAP_SYS_RESOURCE = 24

_CGROUP = "/sys/fs/cgroup"
_NODES = "/sys/devices/system/node"
# cgroup v1 writes a number near 2^63 where there is no limit.
_V1_UNLIMITED = 1 << 62


def memory_facts(system: System) -> MemoryFacts:
    """The memory of a machine, and this user's limits on it."""
    sizes = _meminfo(system, "/proc/meminfo")
    folder = "/sys/kernel/mm/hugepages"
    free, reserved = (_huge_pages(system, folder, name) for name in ("free_hugepages", "resv_hugepages"))
    soft, hard = (
        None if limit == resource.RLIM_INFINITY else limit for limit in system.limits(resource.RLIMIT_MEMLOCK)
    )
    return MemoryFacts(
        total=sizes.get("MemTotal", 0),
        available=sizes.get("MemAvailable", 0),
        swap=sizes.get("SwapTotal", 0),
        hugepages_free={size: max(0, count - reserved.get(size, 0)) for size, count in free.items()},
        hugepages_total=_huge_pages(system, folder, "nr_hugepages"),
        nodes=_nodes(system),
        node_cpus=_node_cpus(system),
        cgroup=cgroup_facts(system),
        memlock_soft=soft,
        memlock_hard=hard,
        stack=_stack(system),
        can_set_limits=bool(_effective_capabilities(system) >> _CAP_SYS_RESOURCE & 1),
        can_raise_memlock=bool(_effective_capabilities(system) & (1 << _CAP_IPC_LOCK | 1 << _CAP_SYS_RESOURCE)),
    )


def given_back(facts: MemoryFacts, pid: int) -> MemoryFacts:
    """The memory as it will be when the process ``pid`` has gone, as far as huge pages go: proc_pid_smaps(5)."""
    freed: dict[str, int] = {}
    page = 0
    try:
        lines = Path(f"/proc/{pid}/smaps").read_text().splitlines()
    except OSError:
        # It has gone by now, or is nobody's to look at: nothing more is free than what is counted.
        return facts
    for line in lines:
        key, _, value = line.partition(":")
        if key == "KernelPageSize":
            page = int(value.split()[0]) << 10
        elif key in ("Shared_Hugetlb", "Private_Hugetlb") and page:
            size = next((name for name, count in PAGE_SIZES.items() if count == page), "")
            freed[size] = freed.get(size, 0) + (int(value.split()[0]) << 10) // page
    nodes = {
        node: {size: count + freed.get(size, 0) for size, count in sizes.items()} for node, sizes in facts.nodes.items()
    }
    free = {size: count + freed.get(size, 0) for size, count in facts.hugepages_free.items()}
    return replace(facts, hugepages_free=free, nodes=nodes)


def cgroup_facts(system: System) -> CgroupFacts:
    """The memory limit that this process is under, and where it could set one: cgroups(7), /proc/PID/cgroup."""
    hierarchies = [line.split(":", 2) for line in (system.text("/proc/self/cgroup") or "").splitlines()]
    unified = next((path for number, _, path in hierarchies if number == "0"), None)
    old = next((path for _, controllers, path in hierarchies if "memory" in controllers.split(",")), None)
    if old is not None:
        folder = f"{_CGROUP}/memory{old}".rstrip("/")
        limit, limited_by = _limit(system, folder, "memory.limit_in_bytes", f"{_CGROUP}/memory")
        return CgroupFacts(
            version=1,
            path=folder,
            limit=limit,
            limited_by=limited_by,
            parent_problem="the memory controller is in the old hierarchy (cgroup v1)",
        )
    if unified is None:
        return CgroupFacts(parent_problem="no cgroup v2 is mounted")
    folder = f"{_CGROUP}{unified}".rstrip("/")
    if "memory" not in (system.text(f"{_CGROUP}/cgroup.controllers") or "").split():
        return CgroupFacts(path=folder, parent_problem="cgroup v2 has no memory controller")
    limit, limited_by = _limit(system, folder, "memory.max", _CGROUP)
    parent, problem = _parent(system, folder)
    return CgroupFacts(
        version=2,
        path=folder,
        limit=limit,
        limited_by=limited_by,
        parent=parent,
        parent_problem=problem,
        systemd=_systemd(system),
    )


def _limit(system: System, folder: str, name: str, top: str) -> tuple[int | None, str]:
    """The smallest limit from ``folder`` up to ``top``, and the file that holds it."""
    smallest: int | None = None
    where = ""
    current = PurePosixPath(folder)
    while str(current).startswith(top):
        value = system.number(f"{current}/{name}")
        if value is not None and value < _V1_UNLIMITED and (smallest is None or value < smallest):
            smallest, where = value, f"{current}/{name}"
        current = current.parent
    return smallest, where


def _parent(system: System, folder: str) -> tuple[str, str]:
    """The nearest cgroup above the process's own in which this user may make one with a memory limit.

    A cgroup with processes of its own can't have children with controllers, so the process's own one won't do; and
    moving a process takes write access to cgroup.procs of what both have in common: cgroups(7), "delegation".
    """
    current = PurePosixPath(folder)
    while str(current).startswith(_CGROUP):
        enabled = (system.text(f"{current}/cgroup.subtree_control") or "").split()
        writable = all(
            os.access(system.path(f"{current}{file}"), os.W_OK)
            for file in ("", "/cgroup.procs", "/cgroup.subtree_control")
        )
        if "memory" in enabled and writable:
            return str(current), ""
        current = current.parent
    return "", f"no cgroup above {folder} with memory in cgroup.subtree_control lets this user make one"


def _meminfo(system: System, path: str) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for line in (system.text(path) or "").splitlines():
        key, _, rest = line.partition(":")
        numbers = rest.split()
        if numbers and numbers[0].isdigit():
            sizes[key.split()[-1]] = int(numbers[0]) * 1024
    return sizes


def _huge_pages(system: System, folder: str, name: str) -> dict[str, int]:
    counts = {size: system.number(f"{folder}/{huge_pages_folder(size)}/{name}") for size in PAGE_SIZES}
    return {size: count for size, count in counts.items() if count is not None}


def _node_cpus(system: System) -> dict[str, list[int]]:
    lists = {name: system.text(f"{_NODES}/{name}/cpulist") for name in system.names(_NODES)}
    return {name.removeprefix("node"): parse_ranges(text) for name, text in sorted(lists.items()) if text is not None}


def _nodes(system: System) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for name in system.names(_NODES):
        number = name.removeprefix("node")
        if name.startswith("node") and number.isdigit():
            # A line reads "Node 0 MemFree:  123 kB".
            free = _meminfo(system, f"{_NODES}/{name}/meminfo").get("MemFree", 0)
            found[number] = {"free": free, **_huge_pages(system, f"{_NODES}/{name}/hugepages", "free_hugepages")}
    return dict(sorted(found.items(), key=lambda item: int(item[0])))


def _stack(system: System) -> int:
    """pthread_attr_init(3): the soft limit, or 2 MiB on x86-64 where there is none."""
    soft = system.limits(resource.RLIMIT_STACK)[0]
    return 2 << 20 if soft == resource.RLIM_INFINITY else soft


def _systemd(system: System) -> Literal["", "system", "user"]:
    """sd_booted(3); a user's own systemd listens in the runtime folder."""
    if not system.path("/run/systemd/system").is_dir() or shutil.which("systemd-run") is None:
        return ""
    if os.geteuid() == 0:
        return "system"
    folder = base_folder("XDG_RUNTIME_DIR")
    return "user" if folder and system.path(f"{folder}/systemd/private").exists() else ""


def _effective_capabilities(system: System) -> int:
    for line in (system.text("/proc/self/status") or "").splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0
