"""What no machine has room for, contradictions of CPUs and memory, and the neighbours that are fine."""

from __future__ import annotations

import pytest

from sevlaunch.profile.loader import loads
from tests.profile.test_rules import ES, NONE, SEV, SNP, broken

# Lines, the path to blame, part of the message; then lines beside it that are fine.
MACHINE = [
    (["machine: isapc"], "machine", "it has no PCI bus", ["machine: pc"]),
    (["machine: none"], "machine", "it has no CPU", ["machine: q35"]),
    (["machine: x-remote"], "machine", "runs devices for another QEMU", ["machine: pc-q35-rhel9.4.0"]),
    (["machine: microvm"], "machine", "boots no UEFI firmware", ["machine: pc-q35-jammy-maxcpus"]),
    (["machine: xenfv-4.2"], "machine", "a guest of Xen", ["machine: ubuntu-q35", SEV]),
    (["accel: tcg", "cpu: {model: host}"], "cpu.model", "model: max", ["accel: tcg", "cpu: {model: max}"]),
    (["cpu: {model: n270}", SEV], "cpu.model", "no long mode", ["cpu: {model: n270}"]),
    (["cpu: {model: pentium}", "memory: 3G"], "memory.size", "reaches 4 GiB", ["cpu: {model: pentium}", "memory: 2G"]),
    (["cpu: {model: 486-v1}"], "cpu.model", "no local APIC", ["cpu: {model: 486-v1, features: [apic=on]}"]),
    (
        ["cpu: {model: kvm32}", "memory: 63G"],
        "memory.size",
        "memory can have 62G",
        ["cpu: {model: kvm32}", "memory: 62G"],
    ),
    (
        ["cpu: {model: athlon, features: [phys-bits=40]}"],
        "cpu.features.0",
        "can't be changed",
        ["cpu: {features: [phys-bits=40]}"],
    ),
    (["cpu: {features: [phys-bits=53]}"], "cpu.features.0", "wanted 32 to 52 bits", ["cpu: {features: [phys-bits=0]}"]),
    (["cpu: {count: 4, maxcpus: 3}"], "cpu.maxcpus", "no room for the 4 vCPUs", ["cpu: {count: 4, maxcpus: 4}"]),
    (
        ["cpu: {count: 4, maxcpus: 6, cores: 4}"],
        "cpu.cores",
        "4 cores makes 4, which does not fit cpu.maxcpus 6",
        ["cpu: {count: 4, maxcpus: 8, cores: 4}"],
    ),
    (
        ["cpu: {count: 8, sockets: 2, dies: 2, cores: 2, threads: 2}"],
        "cpu.sockets",
        "2 sockets x 2 dies x 2 cores x 2 threads makes 16",
        ["cpu: {count: 8, sockets: 2, dies: 2, cores: 2, threads: 1}"],
    ),
    (["cpu: {count: 2, pin: [0]}"], "cpu.pin", "an entry for each of 2 vCPUs, found 1", ["cpu: {count: 1, pin: [0]}"]),
    (["cpu: {pin: auto}", SNP], "cpu.pin", "comes from: list CPUs", ["cpu: {pin: [0]}", SNP]),
    (["cpu: {pin: auto}"], "cpu.pin", "use memory.nodes", ["cpu: {pin: auto}", "memory: {nodes: [0]}"]),
    (["cpu: {pin: [a]}"], "cpu.pin.0", "wanted numbers and ranges such as 0-3,8", ["cpu: {pin: ['0-3,8']}"]),
    (["iommu: intel", SNP], "iommu.type", "more than 255 vCPUs need none", ["iommu: auto", SNP]),
    (["iommu: virtio", SEV], "iommu.type", "QEMU can't read its tables", ["iommu: none", SEV]),
    (["iommu: intel", "machine: pc"], "iommu.type", "use machine: q35", ["iommu: virtio", "machine: pc"]),
    (
        ["iommu: {caching_mode: on}"],
        "iommu.caching_mode",
        "is for type intel",
        ["iommu: {type: intel, caching_mode: on}"],
    ),
    (["iommu: {translation: off, type: virtio}"], "iommu.translation", "found type virtio", ["iommu: virtio"]),
]


@pytest.mark.parametrize(("lines", "path", "message", "fine"), MACHINE, ids=[" ".join(row[0]) for row in MACHINE])
def test_a_machine_that_no_qemu_has_is_refused_and_its_neighbour_fine(
    lines: list[str], path: str, message: str, fine: list[str]
) -> None:
    ((found_path, found_message),) = broken(*lines)
    assert found_path == path
    assert message in found_message
    assert broken(*fine) == []


@pytest.mark.parametrize(("security", "warned"), [(SEV, False), (ES, True), (SNP, True), (NONE, False)])
def test_room_for_vcpus_that_can_never_come_is_warned_of(security: str, warned: bool) -> None:
    loaded = loads(f"{security}\ncpu: {{count: 4, maxcpus: 255}}\n")
    assert [problem.path for problem in loaded.warnings] == ["cpu.maxcpus"] * warned


# Lines, the path to blame, part of the message; then lines beside it that are fine.
TWO = "numa: [{cpus: 0-1, memory: 1G}, {cpus: 2-3, memory: 1G}]"
FOUR = ["cpus: 4", "memory: 2G"]
MEMORY = [
    ([SNP, "memory: {hugepages: 2M}"], "memory.hugepages", "cost its memory twice", [SEV, "memory: {hugepages: 2M}"]),
    ([SNP, "memory: {prealloc: true}"], "memory.prealloc", "twice", [SNP, "memory: {prealloc: auto}"]),
    ([SNP, "memory: {lock: true}"], "memory.lock", "twice", [SNP, "memory: {lock: false}"]),
    ([SNP, "memory: {nodes: [0]}"], "memory.nodes", "use cpu.pin", [ES, "memory: {nodes: [0]}"]),
    (
        [SNP, "numa: [{cpus: 0, memory: 1G, host_node: 1}]"],
        "numa.0.host_node",
        "use cpu.pin",
        [SNP, "numa: [{cpus: 0, memory: 1G}]"],
    ),
    ([*FOUR, TWO.replace("1G}]", "2G}]")], "numa", "have 3G of memory together, and memory.size is 2G", [*FOUR, TWO]),
    ([*FOUR, TWO.replace("2-3", "1-3")], "numa.1.cpus", "vCPU 1 is in another node", [*FOUR, TWO, SEV]),
    ([*FOUR, TWO.replace("2-3", "2")], "numa", "vCPU 3 is in none", [*FOUR, TWO, SNP]),
    ([*FOUR, TWO.replace("2-3", "2-4")], "numa", "there is no vCPU 4", [*FOUR, TWO, ES]),
    (
        ["cpu: {count: 4, maxcpus: 6}", "memory: 2G", TWO],
        "numa",
        "vCPU 4-5 is in none",
        ["cpu: {count: 4, maxcpus: 6}", "memory: 2G", TWO.replace("2-3", "2-5")],
    ),
    (
        [*FOUR, TWO.replace("1G}]", "1G, distances: [21, 10]}]")],
        "numa.0",
        "the other nodes have distances",
        [*FOUR, "numa: [{cpus: 0-3, memory: 1G, distances: [10, 21]}, {memory: 1G, distances: [21, 10]}]"],
    ),
    (
        ["cpus: 1", "numa: [{cpus: 0, memory: 1G, distances: [11]}]"],
        "numa.0.distances.0",
        "to itself is 10",
        ["numa: [{cpus: 0, memory: 1G, distances: [10]}]"],
    ),
    (
        ["numa: [{cpus: 0, memory: 1G, distances: [10, 20]}]"],
        "numa.0.distances",
        "a distance to each of 1 nodes, found 2",
        ["numa: [{cpus: 0, memory: 1G}]"],
    ),
    (
        ["memory: {size: 1G, nodes: [0]}", "numa: [{cpus: 0, memory: 1G, host_node: 0}]"],
        "memory.nodes",
        "leave nodes out",
        ["memory: {size: 1G, nodes: [0]}", "numa: [{cpus: 0, memory: 1G}]"],
    ),
    (
        ["memory: {size: 1G, hugepages: 1G}", "numa: [{cpus: 0, memory: 512M}, {memory: 512M}]"],
        "numa.0.memory",
        "wanted whole pages of 1G",
        ["memory: {size: 1G, hugepages: 2M}", "numa: [{cpus: 0, memory: 512M}, {memory: 512M}]"],
    ),
]


@pytest.mark.parametrize(("lines", "path", "message", "fine"), MEMORY, ids=[" ".join(row[0]) for row in MEMORY])
def test_memory_that_can_not_be_is_refused_and_its_neighbour_fine(
    lines: list[str], path: str, message: str, fine: list[str]
) -> None:
    found_path, found_message = broken(*lines)[0]
    assert found_path == path
    assert message in found_message
    assert broken(*fine) == []


def test_more_nodes_than_qemu_has_are_refused() -> None:
    numa = "numa: [{cpus: 0, memory: 1M}" + ", {memory: 1M}" * 128 + "]"
    ((path, message),) = broken("memory: 129M", numa)
    assert path == "numa"
    assert "at most 128 NUMA nodes" in message
