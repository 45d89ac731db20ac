"""vCPUs: as many as QEMU, machine type and KVM have, arranged as asked for, and taken by every real QEMU."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from msgspec.structs import replace

from sevlaunch.errors import HostError, ProfileError, SevlaunchError
from sevlaunch.host.facts import Device, Folders, KvmFacts, MemoryFacts
from sevlaunch.host.model import Host
from sevlaunch.host.qemu import qemu_facts
from sevlaunch.host.qemu_answers import converse
from sevlaunch.plan.command_line import argv
from sevlaunch.plan.formats import explain
from sevlaunch.plan.resolve import resolve
from sevlaunch.plan.topology import Topology, arranged
from sevlaunch.profile.cpu_models import has_local_apic, is_32_bit, reaches_4_gib
from sevlaunch.profile.loader import loads
from sevlaunch.profile.model import Cpu
from tests.conftest import HOSTS, VERSIONS, qemu_binary_of

KVM_HOST = KvmFacts(module="kvm_amd", device=Device(path="/dev/kvm", exists=True, openable=True), most_vcpus=1024)
TCG_HOST = KvmFacts(module="none", device=Device(path="/dev/kvm"))
LARGE = MemoryFacts(total=4 << 40, available=4 << 40, can_raise_memlock=True)


def host(version: str, kvm: KvmFacts | None = None) -> Host:
    """The recorded Milan with this QEMU and much memory, and with another KVM."""
    recorded = Host.load(HOSTS / f"milan-qemu-{version}.json")
    return replace(recorded, kvm=kvm or recorded.kvm, memory=LARGE)


def arguments(text: str, on: Host) -> list[str]:
    """The command line of a profile."""
    return argv(resolve(loads(f"name: g\n{text}\n", file="p.yaml"), on))


def value(found: list[str], option: str) -> str:
    """What stands behind an option."""
    return found[found.index(option) + 1]


def refusal(text: str, on: Host) -> str:
    """What is said of a profile that the host refuses."""
    with pytest.raises(SevlaunchError) as caught:
        arguments(text, on)
    return str(caught.value)


@pytest.mark.parametrize(
    ("cpu", "whole"),
    [
        (Cpu(count=8), Topology(1, 1, 1, 8, 1)),
        (Cpu(count=8, threads=2), Topology(1, 1, 1, 4, 2)),
        (Cpu(count=8, sockets=2), Topology(2, 1, 1, 4, 1)),
        (Cpu(count=8, cores=2), Topology(4, 1, 1, 2, 1)),
        (Cpu(count=8, sockets=2, cores=2), Topology(2, 1, 1, 2, 2)),
        (Cpu(count=4, maxcpus=16, dies=2, threads=2), Topology(1, 2, 1, 4, 2)),
        (Cpu(count=16, dies=2, modules=2, sockets=2), Topology(2, 2, 2, 2, 1)),
    ],
)
def test_what_a_topology_leaves_open_is_filled(cpu: Cpu, whole: Topology) -> None:
    assert arranged(cpu) == whole


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "topology",
    [
        "cpu: {count: 12, sockets: 3, threads: 2}",
        "cpu: {count: 12, sockets: 1, dies: 3, cores: 2}",
        "cpu: {count: 6, maxcpus: 18, sockets: 3, cores: 3}",
    ],
)
def test_the_numbers_of_vcpus_are_those_that_qemu_gives(topology: str, version: str) -> None:
    cpu = loads(f"{topology}\n").profile.cpu
    smp = value(arguments(f"{topology}\nsecurity: none", host(version, TCG_HOST)), "-smp")
    machine = "q35,accel=tcg," + ",".join(f"smp.{level}" for level in smp.split(","))
    binary = qemu_binary_of(version)
    (reply,) = converse(binary, machine, [("query-cpus-fast", {})])
    paths = {one["cpu-index"]: one["qom-path"] for one in reply["return"]}
    asked = converse(
        binary, machine, [("qom-get", {"path": paths[index], "property": "apic-id"}) for index in range(cpu.count)]
    )
    assert [one["return"] for one in asked] == [arranged(cpu).apic_id(index) for index in range(cpu.count)]


# A profile, what is in -machine, in -cpu, and the device.
MANY = [
    ("cpus: 254\nsecurity: sev", "", "", ""),
    ("cpus: 255\nsecurity: sev", "smbios-entry-point-type=64", "", ""),
    ("cpus: 288\nsecurity: sev", "kernel-irqchip=split", "x2apic=on,kvm-msi-ext-dest-id=on", ""),
    (
        "cpus: 288",
        "kernel-irqchip=split",
        "kvm-msi-ext-dest-id=on",
        "intel-iommu,intremap=on,eim=on,dma-translation=off",
    ),
    ("cpus: 288\niommu: none", "kernel-irqchip=split", "kvm-msi-ext-dest-id=on", ""),
    ("cpu: {count: 195, sockets: 3, cores: 65}", "kernel-irqchip=split", "x2apic=on", "intel-iommu"),
    ("cpu: {count: 4, maxcpus: 288}\nsecurity: sev-es", "smbios-entry-point-type=64", "kvm-msi-ext-dest-id=on", ""),
    ("iommu: intel", "kernel-irqchip=split", "", "intel-iommu,intremap=on,eim=on"),
    ("iommu: {type: intel, caching_mode: on}\nmachine: pc-q35-6.2", "split", "", "eim=on,caching-mode=on"),
    ("iommu: virtio", "", "", "virtio-iommu-pci,bus=pcie.0,addr=0xf,disable-legacy=on,iommu_platform=on"),
]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("text", "machine", "cpu", "device"), MANY, ids=[row[0] for row in MANY])
def test_more_vcpus_than_a_byte_counts_have_what_they_take(
    text: str, machine: str, cpu: str, device: str, version: str
) -> None:
    found = arguments(text, host(version, KVM_HOST if "sev" not in text else None))
    assert machine in value(found, "-machine")
    assert cpu in value(found, "-cpu")
    assert any(
        device in argument for argument in found if "iommu," in argument or "iommu-pci," in argument or not device
    )
    assert ("eim=on" in device or "intel" in device) == any("intel-iommu" in argument for argument in found)
    if "25" in text:
        assert "split" not in value(found, "-machine")


# What the plan says of the CPU is what a real QEMU takes, paused. Under TCG, so that each of them says it.
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "text",
    [
        "cpus: 255\nmachine: pc-q35-6.2",
        "cpus: 300",
        "cpu: {count: 195, sockets: 3, cores: 65, model: EPYC}",
        "cpu: {count: 8, maxcpus: 300, dies: 2}",
        "cpu: {count: 8, modules: 2}",
        "cpu: {count: 2, model: n270}\nmemory: 62G",
        "cpu: {count: 2, model: EPYC, features: [phys-bits=45, svm=off, lahf_lm=on]}",
        "memory: 1900G",
        "memory: 960G",
        "iommu: virtio",
        "iommu: intel",
        "cpus: 256\nmachine: pc",
    ],
)
def test_every_qemu_takes_the_vcpus_that_are_not_refused(text: str, version: str, base: Path) -> None:
    folders = Folders(runtime=str(base / "run"), state=str(base / "state"))
    binary = qemu_binary_of(version)
    here = replace(host(version, TCG_HOST), folders=folders, qemu=qemu_facts(binary))
    try:
        found = arguments(f"{text}\nfirmware: {{image: /i}}", here)
    except HostError as error:
        # Said before QEMU is started: what it takes, and what there is instead.
        assert all(problem.hint for problem in error.problems)
        assert (version, text) in REFUSED
        return
    assert (version, text) not in REFUSED
    wanted = [argument for argument in found if argument.startswith(("intel-iommu", "virtio-iommu"))]
    memory = next(argument for argument in found if argument.startswith("memory-backend"))
    chosen = [
        part for option in ("-machine", "-accel", "-cpu", "-smp", "-m") for part in (option, value(found, option))
    ]
    # Nothing is there of the memory until it is used.
    chosen += ["-object", f"{memory},reserve=off", *(part for one in wanted for part in ("-device", one))]
    done = subprocess.run(
        [binary, *chosen, "-nodefaults", "-display", "none", "-S", "-qmp", "stdio"],
        input='{"execute": "qmp_capabilities"}\n{"execute": "quit"}\n',
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


REFUSED = {
    ("7.2", "cpus: 300"),
    ("7.2", "cpu: {count: 195, sockets: 3, cores: 65, model: EPYC}"),
    ("7.2", "cpu: {count: 8, maxcpus: 300, dies: 2}"),
    ("7.2", "cpu: {count: 8, modules: 2}"),
    *((version, "cpus: 256\nmachine: pc") for version in VERSIONS),
}


@pytest.mark.parametrize(
    ("text", "kvm", "said"),
    [
        ("cpus: 300", KVM_HOST, "the machine pc-q35-7.2 of QEMU 7.2.22 has at most 288 vCPUs"),
        ("cpus: 256\nmachine: pc", KVM_HOST, "use machine: pc-q35-7.2, which has up to 288"),
        ("cpus: 256", TCG_HOST, "has no x2APIC without KVM: a vCPU's number 255 is over 254"),
        ("cpus: 65", replace(KVM_HOST, most_vcpus=64), "KVM has at most 64 vCPUs"),
        ("cpu: {model: host}", TCG_HOST, "takes KVM, and there is none"),
        ("cpu: {features: [x3apic=on]}", KVM_HOST, "no CPU property 'x3apic', which cpu.features.0 sets"),
        ("cpu: {features: [svm=maybe]}", KVM_HOST, "wanted svm=on or svm=off, found 'svm=maybe'"),
        ("cpu: {features: [stepping=one]}", KVM_HOST, "wanted a number for stepping"),
        ("cpu: {count: 8, modules: 2}", KVM_HOST, "cpu.modules came with QEMU 9.1"),
    ],
)
def test_what_a_qemu_or_kvm_has_no_room_for_is_refused_with_the_number(text: str, kvm: KvmFacts, said: str) -> None:
    assert said in refusal(text, host("7.2", kvm))


def test_properties_of_a_saved_host_that_does_not_tell_them_are_taken_as_they_are() -> None:
    old = host("10.0", replace(KVM_HOST, most_vcpus=None))
    assert old.qemu
    silent = replace(old, qemu=replace(old.qemu, cpu_properties={}, most_cpus={}, topology=[]))
    assert "x3apic=on" in value(arguments("cpu: {features: [x3apic=on], count: 4000, modules: 2}", silent), "-cpu")


def test_a_distributions_machine_types_are_asked_of_the_qemu() -> None:
    debian = host("10.0")
    assert debian.qemu
    types = {"pc-q35-rhel9.4.0": "pc-q35-rhel9.4.0", "ubuntu-q35": "pc-q35-noble", "ubuntu": "pc-i440fx-noble"}
    known = replace(debian, qemu=replace(debian.qemu, machines=debian.qemu.machines | types))
    for name in ("pc-q35-rhel9.4.0", "ubuntu-q35"):
        assert value(arguments(f"machine: {name}\nsecurity: sev", known), "-machine").startswith(f"{name},")
        assert f"has no machine {name!r}" in refusal(f"machine: {name}\nsecurity: sev", debian)
    assert "needs a q35 machine, and ubuntu is pc-i440fx-noble" in refusal("machine: ubuntu\nsecurity: sev", known)
    with pytest.raises(ProfileError, match="needs a q35 machine"):
        loads("machine: pc\nsecurity: sev\n")


@pytest.mark.parametrize(
    ("machine", "refused"),
    [("pc-q35-2.6", True), ("pc-i440fx-2.6", True), ("pc-q35-2.7", False), ("pc-i440fx-2.12", False)],
)
def test_a_machine_type_whose_virtio_devices_have_no_dma_api_is_refused(machine: str, refused: bool) -> None:
    found = refusal(f"machine: {machine}", host("7.2")) if refused else ""
    assert ("from before 1.0" in found) == refused
    if not refused:
        assert value(arguments(f"machine: {machine}", host("7.2")), "-machine").startswith(machine)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_models_without_long_mode_or_a_local_apic_are_those_of_the_real_qemus(version: str) -> None:
    binary = qemu_binary_of(version)
    models = [name for name in qemu_facts(binary).cpu_models if name != "host"]
    commands = [
        ("query-cpu-model-expansion", {"type": "full", "model": {"name": name}}) for name in models if name != "host"
    ]
    replies = converse(binary, "pc,accel=tcg", commands)
    for name, reply in zip(models, replies, strict=True):
        properties = reply["return"]["model"]["props"]
        assert is_32_bit(name) == (not properties["lm"]), name
        assert reaches_4_gib(name) == (not properties["pae"] and not properties["pse36"]), name
        assert has_local_apic(name) == properties["apic"], name


NODES = MemoryFacts(
    total=1 << 40, can_raise_memlock=True, nodes={"0": {}, "1": {}}, node_cpus={"0": [*range(8)], "1": [*range(8, 16)]}
)


@pytest.mark.parametrize(
    ("text", "pins"),
    [
        ("cpu: {count: 2, pin: [3, 4-5]}", ["3", "4-5"]),
        ("cpu: {count: 2, pin: auto}\nmemory: {size: 1G, nodes: [1]}", ["8-15", "8-15"]),
        ("cpu: {count: 1, pin: auto}\nmemory: {size: 1G, nodes: [0, 1]}", ["0-15"]),
        ("cpu: {count: 1}", []),
    ],
)
def test_vcpus_are_pinned_to_the_listed_cpus_or_near_their_memory(text: str, pins: list[str]) -> None:
    plan = resolve(loads(f"{text}\n"), replace(host("10.0"), memory=NODES))
    assert [one.value for one in plan.cpu.pins] == pins
    for index, cpus in enumerate(pins):
        assert f"vCPU {index}: CPU {cpus} of the host (profile: " in explain(plan)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cpu: {count: 2, pin: [3, 15-17]}", "vCPU 1 asks for CPU 16-17, and may run on 0-15"),
        (
            "cpu: {count: 1, pin: auto}\nmemory: {size: 1G, nodes: [2]}",
            "NUMA node 2, and none is known there",
        ),
    ],
)
def test_cpus_that_the_host_does_not_lend_are_refused(text: str, said: str) -> None:
    assert said in refusal(text, replace(host("10.0"), memory=NODES))


def test_pinning_another_users_threads_takes_a_capability_and_ones_own_none() -> None:
    own = loads("cpu: {count: 1, pin: [0]}\n")
    other = loads("cpu: {count: 1, pin: [0]}\nrun_as: nobody\n")
    assert "CAP_SYS_NICE" not in resolve(own, host("10.0")).needs.capabilities
    assert "CAP_SYS_NICE" in resolve(other, host("10.0")).needs.capabilities
