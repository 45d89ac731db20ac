"""Memory of the plan: NUMA nodes of the guest and the host, limits told apart, and what an SNP guest's can't be."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from msgspec.structs import replace

from sevlaunch.errors import SevlaunchError
from sevlaunch.host.facts import CgroupFacts, MemoryFacts
from sevlaunch.host.model import Host
from sevlaunch.plan.command_line import argv
from sevlaunch.plan.formats import explain
from sevlaunch.plan.plan import Plan
from sevlaunch.plan.resolve import resolve
from sevlaunch.profile.loader import loads
from tests import needs
from tests.conftest import HOSTS, VERSIONS, Command, qemu_binary_of
from tests.guest.support import JSON, PLAIN, with_qemu

MIB = 1 << 20
MEMORY = MemoryFacts(
    total=64 << 30,
    available=64 << 30,
    swap=8 << 30,
    can_raise_memlock=True,
    nodes={"0": {"free": 8 << 30, "2M": 1024}, "1": {"free": 8 << 30, "2M": 512}},
    node_cpus={"0": [*range(8)], "1": [*range(8, 16)]},
    hugepages_free={"2M": 1536},
    cgroup=CgroupFacts(version=2, parent="/sys/fs/cgroup"),
)
NUMA = (
    "cpu: {count: 4, pin: auto}\nmemory: 4G\n"
    "numa: [{cpus: '0,2', memory: 1G, host_node: 0, distances: [10, 21]},"
    " {cpus: '1,3', memory: 3G, host_node: 1, distances: [21, 10]}]\n"
)


def plan_of(text: str, memory: MemoryFacts = MEMORY, version: str = "10.0") -> Plan:
    """The plan on the recorded Milan with this memory."""
    host = replace(Host.load(HOSTS / f"milan-qemu-{version}.json"), memory=memory)
    return resolve(loads(f"name: g\n{text}\n", file="p.yaml"), host)


def refusal(text: str, memory: MemoryFacts = MEMORY) -> str:
    """What is said of a profile that the host refuses."""
    with pytest.raises(SevlaunchError) as caught:
        plan_of(text, memory)
    return str(caught.value)


def values(plan: Plan, option: str) -> list[str]:
    """What stands behind each of an option."""
    found = argv(plan)
    return [found[index + 1] for index, text in enumerate(found) if text == option]


@pytest.mark.parametrize("security", ["none", "sev", "sev-es"])
def test_each_node_has_a_backend_bound_to_its_node_of_the_host(security: str) -> None:
    plan = plan_of(f"{NUMA}security: {security}")
    first, second = (one for one in values(plan, "-object") if one.startswith("memory-backend"))
    assert first.startswith("memory-backend-ram,id=ram0,size=1024M,host-nodes=0,policy=bind")
    assert second.startswith("memory-backend-ram,id=ram1,size=3072M,host-nodes=1,policy=bind")
    assert values(plan, "-numa") == [
        "node,nodeid=0,cpus=0,cpus=2,memdev=ram0",
        "node,nodeid=1,cpus=1,cpus=3,memdev=ram1",
        "dist,src=0,dst=0,val=10",
        "dist,src=0,dst=1,val=21",
        "dist,src=1,dst=0,val=21",
        "dist,src=1,dst=1,val=10",
    ]
    assert "memory-backend=" not in values(plan, "-machine")[0]
    assert [one.value for one in plan.cpu.pins] == ["0-7", "8-15", "0-7", "8-15"]
    assert "-overcommit" in argv(plan) or security == "none"


def test_shared_folders_and_huge_pages_are_those_of_each_node() -> None:
    huge = NUMA.replace("4G", "{size: 4G, hugepages: 2M}")
    pages = replace(MEMORY, nodes={"0": {"2M": 1536}, "1": {"2M": 1536}})
    plan = plan_of(f"{huge}shares: [{{path: /s, tag: t}}]", pages)
    backends = [one for one in values(plan, "-object") if one.startswith("memory-backend")]
    assert len(backends) == 2
    for backend in backends:
        assert backend.startswith("memory-backend-memfd,")
        assert "hugetlb=on,hugetlbsize=2M,share=on,host-nodes=" in backend


def test_huge_pages_are_counted_on_each_node_of_the_host() -> None:
    few = replace(MEMORY, nodes={"0": {"2M": 511}, "1": {"2M": 1536}})
    said = refusal(NUMA.replace("4G", "{size: 4G, hugepages: 2M}"), few)
    assert "wanted 512 of 2M on NUMA node 0, found 511 free: 1 are missing" in said
    assert "NUMA node 1" not in said


@pytest.mark.parametrize("version", VERSIONS)
def test_a_guest_with_nodes_sees_them(version: str, sevlaunch: Command) -> None:
    numa = "numa=[{cpus: 0, memory: 64M, distances: [10, 30]}, {cpus: 1, memory: 192M, distances: [30, 10]}]"
    sets = ("memory=256M", "cpus=2", "accel=tcg", numa)
    options = (*(part for one in sets for part in ("--set", one)), *with_qemu(qemu_binary_of(version)))
    sevlaunch("up", PLAIN, "--paused", *options)
    backends = sevlaunch("qmp", "plain", "query-memdev", *JSON).json
    assert {one["id"]: one["size"] for one in backends} == {"ram0": 64 * MIB, "ram1": 192 * MIB}
    vcpus = sevlaunch("qmp", "plain", "query-cpus-fast", *JSON).json
    assert [one["props"]["node-id"] for one in vcpus] == [0, 1]


@pytest.mark.parametrize("version", [version for version in VERSIONS if version != "7.2"])
@pytest.mark.parametrize("security", ["sev", "sev-snp"])
def test_an_encrypted_guest_with_nodes_is_launched(security: str, version: str, sevlaunch: Command, base: Path) -> None:
    needs.rehearsal()
    profile = base / "numa.yaml"
    profile.write_text(
        "memory: 256M\ncpus: 2\nnuma: [{cpus: 0, memory: 64M}, {cpus: 1, memory: 192M}]\nnetworks: []\n"
        f"security: {security}\nfirmware: {{image: {needs.amdsev_image()}}}\n"
    )
    sevlaunch("up", profile, "--rehearse", "--paused", *with_qemu(qemu_binary_of(version)))
    assert {one["size"] for one in sevlaunch("qmp", "numa", "query-memdev", *JSON).json} == {64 * MIB, 192 * MIB}


def test_a_node_that_the_host_has_not_is_refused() -> None:
    assert "NUMA node 7; this host has 0, 1" in refusal(
        NUMA.replace("host_node: 1", "host_node: 7").replace("auto", "null")
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("memory: 65G\nsecurity: sev", "asks for 66560 MiB, and this host has 65536 MiB"),
        ("memory: 65G\nsecurity: sev-snp", "asks for 66560 MiB, and this host has 65536 MiB"),
        ("memory: {size: 65G, prealloc: true}", "asks for 66560 MiB, and this host has 65536 MiB"),
        ("memory: {size: 65G, lock: true}", "asks for 66560 MiB, and this host has 65536 MiB"),
        ("memory: 73G", "asks for 74752 MiB, and this host has 65536 MiB and 8G of swap space"),
    ],
)
def test_more_memory_than_the_host_has_is_refused(text: str, said: str) -> None:
    assert said in refusal(text)


@pytest.mark.parametrize("text", ["memory: 64G\nsecurity: sev", "memory: 72G", "memory: 64G\nsecurity: sev-snp"])
def test_as_much_memory_as_the_host_has_is_taken(text: str) -> None:
    assert plan_of(text).memory.size.value >= 64 << 30


def test_a_host_that_does_not_tell_its_memory_refuses_none() -> None:
    assert plan_of("memory: 500G", MemoryFacts(can_raise_memlock=True)).memory.size.value == 500 << 30


# What openstack's and libvirt's guides set: some 256 MiB and more over guest memory.
@pytest.mark.parametrize("limit", ["4563402K", "4352M", "4200M"])
def test_a_limit_over_what_is_certain_is_taken_with_a_warning(limit: str) -> None:
    plan = plan_of(f"memory: {{size: 4G, hard_limit: {limit}}}\nsecurity: sev\ndisks: [{{path: /srv/a.raw}}]")
    (warning,) = [one for one in plan.warnings if "hard_limit" in one]
    assert "can kill the guest: at the worst QEMU takes" in warning
    assert "stacks of" in warning


def test_a_limit_that_must_kill_the_guest_is_refused_with_what_is_certain() -> None:
    said = refusal("memory: {size: 4G, hard_limit: 4169M}\nsecurity: sev")
    assert "p.yaml:2:32: memory.hard_limit: a limit of 4169 MiB kills a guest that uses its memory" in said
    assert "4170 MiB = 4096 MiB guest memory + 74 MiB QEMU itself at least" in said
    assert "hard_limit: auto" in said


def test_a_limit_over_the_worst_case_is_no_warning() -> None:
    assert not plan_of("memory: {size: 4G, hard_limit: 8G}\nsecurity: sev").warnings


def test_an_snp_guests_memory_is_counted_once_private_or_shared() -> None:
    text = explain(plan_of("memory: {size: 4G, hard_limit: auto}\nsecurity: sev-snp"))
    assert "4096 MiB guest memory, private or shared + " in text
    assert "16 MiB page tables + 20 MiB the kernel's records of private pages + " in text
    assert "records of private pages" not in explain(plan_of("memory: {size: 4G, hard_limit: auto}\nsecurity: sev"))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("memory", "bits"), [("960G", ""), ("961G", "host-phys-bits=on"), ("1900G", "host-phys-bits=on")]
)
def test_memory_that_40_bits_do_not_reach_has_the_hosts_addresses(memory: str, bits: str, version: str) -> None:
    large = replace(MEMORY, total=4 << 40)
    cpu = values(plan_of(f"memory: {memory}\nsecurity: sev\ncpus: 64", large, version), "-cpu")[0]
    assert cpu.partition(",")[2] == bits
    own = plan_of(f"memory: {memory}\ncpu: {{features: [phys-bits=46]}}", large, version)
    assert values(own, "-cpu")[0] == "host,phys-bits=46"


@pytest.mark.parametrize("version", VERSIONS)
def test_every_qemu_takes_nodes_and_distances(version: str) -> None:
    # The host of the tests has one node, so nothing is bound to another.
    text = NUMA.replace(", host_node: 0", "").replace(", host_node: 1", "").replace("auto", "null")
    plan = plan_of(f"{text}machine: pc-q35-6.2\naccel: tcg\nfirmware: {{image: /i}}", version=version)
    options = [(name, one) for name in ("-machine", "-m", "-smp", "-numa") for one in values(plan, name)]
    options += [
        ("-object", f"{one},reserve=off") for one in values(plan, "-object") if one.startswith("memory-backend")
    ]
    words = [word for option in options for word in option]
    done = subprocess.run(
        [qemu_binary_of(version), *words, "-nodefaults", "-display", "none", "-S", "-qmp", "stdio"],
        input='{"execute": "qmp_capabilities"}\n{"execute": "quit"}\n',
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
