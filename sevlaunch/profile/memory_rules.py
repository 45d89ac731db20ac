"""Rules about memory: its size and what backs it, what an encrypted guest's has to be, and the guest's NUMA nodes."""

from __future__ import annotations

from collections.abc import Iterator

from sevlaunch.profile.model import Profile, SevSecurity, SnpSecurity
from sevlaunch.profile.violation import Violation
from sevlaunch.units import MEBIBYTE, PAGE_SIZES, format_ranges, format_size, parse_ranges

# ACPI's SLIT: the distance of a node to itself. QEMU's hw/core/numa.c, NUMA_DISTANCE_MIN.
SELF_DISTANCE = 10
# QEMU's include/sysemu/numa.h, MAX_NODES.
MAX_NODES = 128


def check_memory(profile: Profile) -> Iterator[Violation]:
    """Every rule about memory that ``profile`` breaks."""
    if isinstance(profile.security, SevSecurity):
        yield from _locked(profile)
    if isinstance(profile.security, SnpSecurity):
        yield from _private(profile)
    yield from _whole(profile)
    if profile.numa:
        yield from _node_memory(profile)
        yield from _node_cpus(profile)
        yield from _distances(profile)


def _locked(profile: Profile) -> Iterator[Violation]:
    if profile.memory.lock is False and profile.memory.hugepages is None:
        yield Violation(
            ("memory", "lock"),
            f"memory of a {profile.security.type} guest must not be swapped: leave lock at auto, or use hugepages",
            (("memory", "hugepages"),),
        )


def _private(profile: Profile) -> Iterator[Violation]:
    """An SNP guest's memory is KVM's guest_memfd; the backend holds no more than it shares at a time."""
    memory = profile.memory
    twice = "beside the private memory, which is never swapped: the guest would cost its memory twice"
    for key, wrong, reason in (
        ("hugepages", memory.hugepages is not None, f"huge pages back only what it shares, {twice}"),
        ("prealloc", memory.prealloc is True, f"this fills the part that it shares, {twice}"),
        ("lock", memory.lock is True, f"this fills and locks the part that it shares, {twice}"),
        (
            "nodes",
            bool(memory.nodes),
            "this binds the part that it shares alone; its private memory comes from the NUMA node of the vCPU that "
            "touches it first: use cpu.pin",
        ),
    ):
        if wrong:
            message = f"a sev-snp guest can't have memory.{key}: {reason}"
            yield Violation(("memory", key), message, (("security", "type"),))
    for index, node in enumerate(profile.numa):
        if node.host_node is not None:
            yield Violation(
                ("numa", index, "host_node"),
                "a sev-snp guest can't have host_node: it binds the part of memory that it shares alone; its private "
                "memory comes from the node of the vCPU that touches it first: use cpu.pin",
                (("security", "type"),),
            )


def _whole(profile: Profile) -> Iterator[Violation]:
    memory = profile.memory
    if memory.size % MEBIBYTE:
        yield Violation(("memory", "size"), f"wanted whole MiB, found {memory.size} bytes")
    if memory.hugepages and memory.size % PAGE_SIZES[memory.hugepages]:
        yield Violation(
            ("memory", "hugepages"),
            f"the size of memory is no multiple of {memory.hugepages}",
            (("memory", "size"),),
        )


def _node_memory(profile: Profile) -> Iterator[Violation]:
    memory = profile.memory
    if len(profile.numa) > MAX_NODES:
        yield Violation(("numa",), f"QEMU has at most {MAX_NODES} NUMA nodes for a guest, found {len(profile.numa)}")
    unit = PAGE_SIZES[memory.hugepages] if memory.hugepages else MEBIBYTE
    for index, node in enumerate(profile.numa):
        if node.memory % unit:
            wanted = f"whole pages of {memory.hugepages}" if memory.hugepages else "whole MiB"
            yield Violation(
                ("numa", index, "memory"), f"wanted {wanted}, found {node.memory} bytes", (("memory", "hugepages"),)
            )
    total = sum(node.memory for node in profile.numa)
    if total != memory.size:
        yield Violation(
            ("numa",),
            f"the nodes have {format_size(total)} of memory together, and memory.size is {format_size(memory.size)}: "
            f"use memory: {format_size(total)}",
            (("memory", "size"),),
        )
    if memory.nodes and any(node.host_node is not None for node in profile.numa):
        yield Violation(("memory", "nodes"), "host_node of each node says where memory comes from: leave nodes out")


def _node_cpus(profile: Profile) -> Iterator[Violation]:
    most = profile.cpu.maxcpus or profile.cpu.count
    seen: set[int] = set()
    for index, node in enumerate(profile.numa):
        cpus = parse_ranges(node.cpus) if node.cpus else []
        if twice := seen.intersection(cpus):
            yield Violation(("numa", index, "cpus"), f"vCPU {format_ranges(twice)} is in another node already")
        seen.update(cpus)
    if seen != set(range(most)):
        missing, beyond = set(range(most)) - seen, seen - set(range(most))
        said = [f"vCPU {format_ranges(missing)} is in none"] if missing else []
        said += [f"there is no vCPU {format_ranges(beyond)}"] if beyond else []
        yield Violation(
            ("numa",),
            f"wanted each of the vCPUs 0-{most - 1} in one node: {', and '.join(said)}",
            (("cpu", "count"), ("cpu", "maxcpus")),
        )


def _distances(profile: Profile) -> Iterator[Violation]:
    given = [bool(node.distances) for node in profile.numa]
    for index, node in enumerate(profile.numa):
        path = ("numa", index, "distances")
        if node.distances and len(node.distances) != len(given):
            yield Violation(path, f"wanted a distance to each of {len(given)} nodes, found {len(node.distances)}")
        elif node.distances and node.distances[index] != SELF_DISTANCE:
            yield Violation((*path, index), f"the distance of a node to itself is {SELF_DISTANCE}")
        elif any(given) and not node.distances:
            yield Violation(("numa", index), "the other nodes have distances: give them here, too")
