"""This machine as data: CPUID against the kernel's own reading, KVM, limits; saved and loaded unchanged."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from msgspec.structs import replace

from sevlaunch.doctor.requirements import missing
from sevlaunch.guest_type import GuestType
from sevlaunch.host import cpuid
from sevlaunch.host.devices import kvm_facts
from sevlaunch.host.facts import Device, EncryptionLeaf, KvmFacts
from sevlaunch.host.folders import runtime_folder, state_folder
from sevlaunch.host.memory import memory_facts
from sevlaunch.host.model import Host
from sevlaunch.host.system import kvm_attribute
from tests import needs
from tests.conftest import HOSTS
from tests.host.machines import MACHINES, source


@pytest.fixture(scope="module")
def here() -> Host:
    """This machine."""
    return Host.probe()


def from_proc_cpuinfo(key: str) -> str:
    """A value of the first CPU in /proc/cpuinfo."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    raise AssertionError(f"/proc/cpuinfo has no {key}")


def test_cpuid_agrees_with_the_kernel(here: Host) -> None:
    assert here.cpu.vendor == from_proc_cpuinfo("vendor_id")
    assert here.cpu.name == from_proc_cpuinfo("model name")
    assert here.cpu.family == int(from_proc_cpuinfo("cpu family"))
    assert here.cpu.model == int(from_proc_cpuinfo("model"))
    assert here.cpu.stepping == int(from_proc_cpuinfo("stepping"))


def test_cpuid_is_read_without_root(base: Path) -> None:
    needs.root("becoming another user")
    # The project's own may be out of an ordinary user's reach.
    python = needs.file_of("python3", "/usr/bin/python3")
    # The module needs the standard library only.
    shutil.copy(cpuid.__file__, base / "cpuid.py")
    base.chmod(0o755)
    script = "import os, cpuid; read, by = cpuid.reader(); print(os.geteuid(), read(0, 0).ebx, by)"
    done = subprocess.run(
        [python, "-c", script], cwd=base, user=65534, env={}, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"65534 {cpuid.reader()[0](0, 0).ebx} the CPUID instruction\n"


def test_without_an_executable_page_the_device_is_read_or_the_reason_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse() -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(cpuid, "_Instruction", refuse)
    if Path("/dev/cpu/0/cpuid").exists():
        assert cpuid.reader()[1] == "/dev/cpu/0/cpuid"
    else:
        with pytest.raises(OSError, match=r"no executable page .* modprobe cpuid"):
            cpuid.reader()


def test_a_host_is_saved_and_loaded_unchanged(here: Host, tmp_path: Path) -> None:
    file = tmp_path / "host.json"
    file.write_text(here.to_json())
    # That they are not of now is the only difference.
    assert not here.saved
    assert Host.load(file) == replace(here, saved=True)


def test_kvm_is_seen_as_it_is(here: Host) -> None:
    assert here.kvm.device.exists == Path("/dev/kvm").exists()
    assert here.kvm.sev_device.exists == Path("/dev/sev").exists()
    if here.kvm.device.exists:
        assert here.kvm.device.openable == os.access("/dev/kvm", os.R_OK | os.W_OK)


@pytest.mark.parametrize(("value", "on"), [("1", True), ("Y", True), ("y", True), ("0", False), ("N", False)])
def test_both_spellings_of_a_kernel_parameter_count(value: str, on: bool) -> None:
    assert KvmFacts(parameters={"kvm_amd.sev": value}).enabled("sev") is on
    assert KvmFacts().enabled("sev") is False


def test_the_encryption_leaf_is_decoded() -> None:
    # An EPYC 7003, as the Linux kernel documentation and AMD's APM lay the leaf out.
    leaf = EncryptionLeaf(eax=0x0101FD3F, ebx=0x4173, ecx=509, edx=100)
    assert (leaf.sev, leaf.sev_es, leaf.sev_snp) == (True, True, True)
    assert (leaf.cbitpos, leaf.reduced_phys_bits) == (51, 5)
    assert (leaf.sev_guests, leaf.es_guests) == (410, 99)
    naples = EncryptionLeaf(eax=0xF, ebx=0x16F, ecx=15, edx=1)
    assert (naples.sev, naples.sev_es, naples.sev_snp) == (True, True, False)
    assert (naples.cbitpos, naples.reduced_phys_bits, naples.sev_guests, naples.es_guests) == (47, 5, 15, 0)


def test_a_milan_host_lacks_nothing_and_each_fault_is_named_alone() -> None:
    milan = Host.load(HOSTS / "milan-qemu-10.0.json")
    assert [missing(kind, "auto", milan) for kind in GuestType] == [[], [], [], []]
    assert milan.cpu.encryption
    faults: dict[str, dict[str, Any]] = {
        "no CPUID leaf": {"cpu": replace(milan.cpu, encryption=None)},
        "needs an AMD EPYC": {"cpu": replace(milan.cpu, vendor="GenuineIntel")},
        "no ASIDs are left": {"cpu": replace(milan.cpu, encryption=replace(milan.cpu.encryption, edx=1))},
        "SEV-ES in kvm_amd: off (kvm_amd.sev_es is N)": {
            "kvm": replace(milan.kvm, parameters={"kvm_amd.sev": "Y", "kvm_amd.sev_es": "N"})
        },
        "wanted the module kvm_amd": {"kvm": replace(milan.kvm, module="kvm_intel")},
        "/dev/sev: missing": {"kvm": replace(milan.kvm, sev_device=Device(path="/dev/sev"))},
        "/dev/kvm: can't be opened: Permission denied": {
            "kvm": replace(
                milan.kvm, device=Device(path="/dev/kvm", exists=True, group="kvm", error="Permission denied")
            )
        },
        "QEMU: ": {"qemu": None},
    }
    for text, update in faults.items():
        (problem,) = missing(GuestType.SEV_ES, "auto", replace(milan, **update))
        assert text in problem.message
        assert problem.hint


def test_folders_follow_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    monkeypatch.setenv("XDG_STATE_HOME", "/home/u/state")
    assert (str(runtime_folder()), str(state_folder())) == ("/run/user/7/sevlaunch", "/home/u/state/sevlaunch")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert (str(runtime_folder()), str(state_folder())) == ("/run/sevlaunch", "/var/lib/sevlaunch")


def test_an_attribute_of_kvm_is_asked_as_the_kernel_defines_it() -> None:
    needs.kvm()
    # KVM_X86_XCOMP_GUEST_SUPP, which every KVM since Linux 5.17 has: x87 and SSE are always there.
    assert kvm_attribute(Path("/dev/kvm"), 0, 0) & 3 == 3
    with pytest.raises(OSError, match="No such device or address"):
        kvm_attribute(Path("/dev/kvm"), 0x7777, 0)


@pytest.mark.parametrize(("told", "found"), [(0x3FEFFFF, 0x3FEFFFF), (0, None), (None, None)])
def test_the_policies_that_kvm_takes_are_asked_where_it_tells(
    told: int | None, found: int | None, tmp_path: Path
) -> None:
    described = yaml.safe_load((MACHINES / "milan.yaml").read_text())
    if told is not None:
        described["snp_policy_bits"] = told
    assert kvm_facts(source(described, tmp_path)).snp_policy_bits == found


@pytest.mark.parametrize(("told", "found"), [(1024, 1024), (0, None)])
def test_the_vcpus_that_kvm_has_room_for_are_asked(told: int, found: int | None, tmp_path: Path) -> None:
    described = yaml.safe_load((MACHINES / "milan.yaml").read_text()) | {"most_vcpus": told}
    assert kvm_facts(source(described, tmp_path)).most_vcpus == found


def test_the_cpus_of_each_numa_node_are_read(tmp_path: Path) -> None:
    described = yaml.safe_load((MACHINES / "milan.yaml").read_text())
    folder = "/sys/devices/system/node"
    described["files"] |= {
        f"{folder}/node0/cpulist": "0-2,8\n",
        f"{folder}/node1/cpulist": "",
        f"{folder}/possible": "0-1",
    }
    assert memory_facts(source(described, tmp_path)).node_cpus == {"0": [0, 1, 2, 8], "1": []}
