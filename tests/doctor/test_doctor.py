"""The doctor on recorded machines (no AMD SEV hardware is needed), on changed ones, and on this one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from sevlaunch.doctor.examination import REQUIRED, TREE, examine
from sevlaunch.doctor.requirements import missing, missing_for_rehearsal
from sevlaunch.doctor.tree import PURPOSES, Finding, HostCheck, Result, failures, judge
from sevlaunch.guest_type import GuestType
from sevlaunch.host.devices import parse_acl
from sevlaunch.host.facts import AsidPool, Device, PlatformFacts
from sevlaunch.host.memory import cgroup_facts
from sevlaunch.host.model import Host
from sevlaunch.host.system import System
from tests.conftest import HOSTS, PROFILES, Command
from tests.host.machines import NAMES, machine

FIT = {
    "milan": {"none", "kvm", "sev", "sev-es", "sev-snp", "rehearsal"},
    "genoa-snp-off-in-bios": {"none", "kvm", "sev", "sev-es", "rehearsal"},
    "rome-sev-off-in-kvm": {"none", "kvm", "rehearsal"},
    "intel": {"none", "kvm", "rehearsal"},
    "container-without-dev": {"none"},
}
# The failed checks for one type of guest, with a part of what was found and of the remedy.
FAILURES: dict[tuple[str, str], dict[str, tuple[str, str]]] = {
    ("genoa-snp-off-in-bios", "sev-snp"): {
        "processor.snp": ("off in the BIOS: /proc/cpuinfo lists no sev_snp", "SNP Memory (RMP Table) Coverage"),
        "kernel.sev_snp": ("off (kvm_amd.sev_snp is N), for the kernel found it off in the BIOS", "fix that first"),
    },
    ("rome-sev-off-in-kvm", "sev"): {
        "kernel.sev": (
            "'options kvm_amd nested=1 sev=0' in /etc/modprobe.d/50-virtualisation.conf",
            "change it to sev=1 there, then: modprobe -r kvm_amd; modprobe kvm_amd",
        ),
    },
    ("intel", "sev"): {
        "processor": ("found Intel(R) Xeon(R) Platinum 8380", "use an EPYC host"),
        "psp": ("missing", "load the ccp module"),
    },
    ("container-without-dev", "sev-snp"): {
        "kvm": ("missing, the way to KVM", "pass it to the container: --device /dev/kvm"),
        "psp": ("missing, the way to the secure processor", "pass it to the container: --device /dev/sev"),
    },
}


@pytest.fixture
def milan_machine(tmp_path: Path) -> Host:
    """The recorded Milan with everything on."""
    return machine("milan", tmp_path)


def finding(host: Host, name: str, purpose: str | None = None) -> Finding:
    """One finding of the report."""
    found = [one for top in examine(host, purpose).findings for one in top.walk() if one.name == name]
    assert len(found) == 1, f"{name}: {found}"
    return found[0]


def with_platform(host: Host, **changes: Any) -> Host:
    """The host with other facts about its platform."""
    assert host.platform
    return replace(host, platform=replace(host.platform, **changes))


@pytest.mark.parametrize("name", NAMES)
def test_each_recorded_machine_is_fit_for_what_it_is_fit_for(name: str, tmp_path: Path) -> None:
    report = examine(machine(name, tmp_path))
    assert {purpose for purpose, fit in report.fit.items() if fit} == FIT[name]
    assert report.is_fit == bool(FIT[name] & {"sev", "sev-es", "sev-snp"})


@pytest.mark.parametrize(("name", "guest_type"), FAILURES)
def test_what_fails_says_what_was_found_and_how_to_mend_it(name: str, guest_type: str, tmp_path: Path) -> None:
    found = {one.name: one for _, one in failures(examine(machine(name, tmp_path), guest_type).findings)}
    expected = FAILURES[name, guest_type]
    assert set(found) == set(expected)
    for check, (text, remedy) in expected.items():
        assert text in found[check].found
        assert remedy in found[check].remedy
        assert found[check].why


def test_a_failed_parent_skips_its_children_with_the_reason(tmp_path: Path) -> None:
    host = machine("rome-sev-off-in-kvm", tmp_path)
    child = finding(host, "kernel.sev_es")
    assert (child.result, child.found) == (Result.SKIPPED, "not looked at: SEV in kvm_amd failed")
    assert finding(host, "kernel.sev_snp").result is Result.SKIPPED


def test_with_everything_on_nothing_fails_and_nothing_is_unknown(milan_machine: Host) -> None:
    for top in examine(milan_machine).findings:
        for one in top.walk():
            # The limit on locking and the cgroup are those of an ordinary login.
            expected = Result.WARNING if one.name in ("memory.lock", "memory.own_cgroup") else Result.OK
            assert one.result is expected, one
    assert finding(milan_machine, "psp.api").found == "SEV API 1.55, build 21"
    assert finding(milan_machine, "asids.sev").found == "408 of 410"
    assert finding(milan_machine, "asids.sev_es").found == "99 of 99"
    assert finding(milan_machine, "processor.sev_es.asids").found.startswith("99 SEV-ES and SNP guests")
    assert "node 1: 12 of 2M" in finding(milan_machine, "memory.hugepages").found
    assert "500 of 1024 free of 2M" in finding(milan_machine, "memory.hugepages").found
    assert "kvm_amd: SEV-SNP enabled (ASIDs 1 - 99)" in finding(milan_machine, "log").found


def test_the_kernels_own_complaint_is_shown(tmp_path: Path) -> None:
    log = finding(machine("genoa-snp-off-in-bios", tmp_path), "log")
    assert log.result is Result.WARNING
    assert log.found == "SEV-SNP: Memory for the RMP table has not been reserved by BIOS"
    assert "RMP Table" in log.remedy


def test_nothing_of_the_command_line_is_kept_but_what_has_to_do_with_sev(milan_machine: Host) -> None:
    assert "do-not-show" not in milan_machine.to_json()
    assert "usb 1-1" not in milan_machine.to_json()


@pytest.mark.parametrize(
    ("changes", "check", "purpose", "found", "remedy"),
    [
        ({"syscfg": 0}, "processor.sme", "sev", "bit 23 is 0", "SMEE"),
        ({"syscfg": 1 << 23}, "processor.snp.enabled", "sev-snp", "bit 24 is 0", "SEV-SNP Support"),
        ({"asids": {"sev": AsidPool(capacity=3, used=3)}}, "asids.sev", "sev", "all 3 are in use", "stop one"),
        ({"asids": {"sev_es": AsidPool(capacity=1, used=1)}}, "asids.sev_es", "sev-es", "all 1 are in use", "stop"),
        ({"iommu_groups": 0}, "iommu", "sev-snp", "the kernel does not use it", "amd_iommu=on"),
        ({"iommu_groups": 0, "iommu_table": ""}, "iommu", "sev-snp", "no ACPI table IVRS", "BIOS"),
        (
            {"settings": [{"where": "the kernel's command line", "text": "iommu=pt"}]},
            "iommu",
            "sev-snp",
            "started with iommu=pt",
            "take iommu=pt off",
        ),
        ({"seccomp_actions": ["allow"]}, "rehearsal", "rehearsal", "no seccomp user notification", "Linux 5.5"),
    ],
)
def test_each_fault_of_the_platform_is_found(
    milan_machine: Host, changes: dict[str, Any], check: str, purpose: str, found: str, remedy: str
) -> None:
    assert milan_machine.platform
    plain = {**msgspec.to_builtins(milan_machine.platform), **msgspec.to_builtins(changes)}
    changed = msgspec.convert(plain, PlatformFacts)
    host = replace(milan_machine, platform=changed)
    [(_, one)] = failures(examine(host, purpose).findings)
    assert one.name == check
    assert found in one.found
    assert remedy in one.remedy
    assert examine(milan_machine, purpose).is_fit
    assert not examine(host, purpose).is_fit


def test_old_firmware_of_the_secure_processor_has_no_snp(milan_machine: Host) -> None:
    assert milan_machine.platform
    assert milan_machine.platform.sev
    old = replace(milan_machine.platform.sev, api_minor=49)
    assert "API 1.49, SNP needs 1.51" in finding(with_platform(milan_machine, sev=old), "psp.snp.api").found
    assert examine(with_platform(milan_machine, sev=old), "sev").is_fit
    assert not examine(with_platform(milan_machine, sev=old), "sev-snp").is_fit


def test_a_firmware_that_is_not_committed_is_a_warning(milan_machine: Host) -> None:
    assert milan_machine.platform
    assert milan_machine.platform.snp
    newer = replace(milan_machine.platform.snp, current_tcb=5)
    tcb = finding(with_platform(milan_machine, snp=newer), "psp.snp.tcb")
    assert tcb.result is Result.WARNING
    assert "0x0000000000000005" in tcb.found


def test_a_virtual_machine_is_told_to_use_the_physical_one() -> None:
    host = Host.load(HOSTS / "milan-qemu-10.0.json")
    cpu = replace(host.cpu, encryption=None, hypervisor=True)
    assert "virtual machine" in finding(replace(host, cpu=cpu), "processor.leaf").remedy


def test_a_device_that_may_not_be_opened_names_group_acl_and_rule(milan_machine: Host) -> None:
    shared = Device(path="/dev/sev", exists=True, mode="0660", owner="root", group="kvm", error="Permission denied")
    private = replace(shared, mode="0600", group="root", acl=["user:7:rw-"])
    for device, remedy in ((shared, "join the group kvm (usermod -aG kvm"), (private, 'GROUP="kvm", MODE="0660"')):
        kvm = replace(milan_machine.kvm, sev_device=device)
        one = finding(replace(milan_machine, kvm=kvm), "psp")
        assert one.result is Result.FAILED
        assert remedy in one.remedy
    assert "ACL user:7:rw-" in one.found


def test_an_access_control_list_is_read() -> None:
    # acl(5) as linux/posix_acl_xattr.h lays it out: version 2; owner, user 12345, group, mask, other.
    content = bytes.fromhex("02000000 0100 0600 ffffffff 0200 0600 39300000 0400 0000 ffffffff 1000 0600 ffffffff")
    assert parse_acl(content) == ["user:12345:rw-"]
    assert parse_acl(content[:-3]) == ["user:12345:rw-"]
    assert parse_acl(b"") == []


def test_a_cgroups_limit_is_found_where_it_is(tmp_path: Path) -> None:
    host = machine("container-without-dev", tmp_path)
    assert host.memory.cgroup.limit == 1 << 30
    warned = finding(host, "memory.cgroup")
    assert warned.result is Result.WARNING
    assert "1024 MiB (/sys/fs/cgroup/memory.max)" in warned.found
    for path, value in (("a/b/memory.max", "max"), ("a/memory.max", "4096"), ("memory.max", "8192")):
        file = tmp_path / "sys/fs/cgroup" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(value)
    (tmp_path / "proc/self/cgroup").write_text("0::/a/b\n")
    facts = cgroup_facts(System(root=tmp_path))
    assert (facts.limit, facts.limited_by) == (4096, "/sys/fs/cgroup/a/memory.max")


def test_a_cgroup_can_be_made_where_the_controller_is_handed_on(tmp_path: Path) -> None:
    host = machine("container-without-dev", tmp_path)
    assert "lets this user make one" in host.memory.cgroup.parent_problem
    top = tmp_path / "sys/fs/cgroup"
    (top / "cgroup.subtree_control").write_text("cpu memory")
    (top / "cgroup.procs").write_text("1")
    assert cgroup_facts(System(root=tmp_path)).parent == "/sys/fs/cgroup"


def test_what_was_not_gathered_is_unknown_and_blocks_nothing() -> None:
    host = Host.load(HOSTS / "milan-qemu-10.0.json")
    assert host.platform is None
    report = examine(host)
    assert all(report.fit[guest_type] for guest_type in ("none", "sev", "sev-es", "sev-snp"))
    unknown = [one.name for top in report.findings for one in top.walk() if one.result is Result.UNKNOWN]
    assert "psp.api" in unknown
    assert "log" in unknown


def test_up_and_the_doctor_agree(tmp_path: Path) -> None:
    for name in NAMES:
        host = machine(name, tmp_path / name)
        for guest_type in GuestType:
            told = {problem.message for problem in missing(guest_type, "auto", host)}
            failed = {one.found for _, one in failures(examine(host, guest_type).findings)}
            assert all(any(found in message for found in failed) for message in told)
        assert (missing_for_rehearsal(host) == []) == examine(host, "rehearsal").is_fit


def all_checks(checks: tuple[HostCheck, ...]) -> list[HostCheck]:
    """Every check of a tree."""
    return [one for check in checks for one in (check, *all_checks(check.children))]


def test_the_tree_is_sound() -> None:
    checks = all_checks(TREE)
    names = [check.name for check in checks]
    assert len(names) == len(set(names))
    for check in checks:
        assert check.needed_by <= check.concerns <= set(PURPOSES)
        assert check.why.endswith(".")
        for child in check.children:
            # Where a parent's failure stops the look at its children, it must stop whoever needs them.
            assert child.needed_by <= check.needed_by, child.name
            assert child.concerns <= check.concerns, child.name
    assert {check.name for check in all_checks(REQUIRED)} <= set(names)


def test_the_live_machine_is_judged_as_it_is() -> None:
    host = Host.probe(thorough=True)
    report = examine(host)
    has_sev = Path("/dev/sev").exists() and host.kvm.enabled("sev")
    assert report.fit["sev"] == (has_sev and finding(host, "psp").result is Result.OK) or not has_sev
    assert not report.fit["sev"] or has_sev
    assert report.fit["kvm"] == (host.kvm.device.openable and host.qemu is not None and bool(host.firmware))
    for one in judge(TREE, host):
        assert one.found


def test_the_command_says_it_in_lines_and_in_json(sevlaunch: Command) -> None:
    saved = HOSTS / "milan-qemu-10.0.json"
    text = sevlaunch("doctor", "--host", saved, "--type", "sev").stdout
    assert text.splitlines()[0].startswith("milan: Linux 6.12.0")
    assert "\nok     SEV in kvm_amd: kvm_amd.sev is Y\n" in text
    assert "ok     CPUID 0x8000001F: EAX" in text
    assert text.splitlines()[-1] == "fit for sev"
    document = sevlaunch("doctor", "--host", saved, "--format", "json").json
    assert document["fit"] is True
    assert document["fit_for"]["sev-snp"] is True
    names = [check["name"] for check in document["checks"]]
    assert names[:2] == ["processor", "kernel"]
    assert set(document["checks"][0]) == {
        "name", "title", "result", "found", "why", "remedy", "needed_by", "needs_root", "checks",
    }  # fmt: skip


def test_exit_1_where_the_machine_is_not_fit(sevlaunch: Command, tmp_path: Path) -> None:
    saved = tmp_path / "intel.json"
    saved.write_text(machine("intel", tmp_path / "root").to_json())
    refused = sevlaunch("doctor", "--host", saved, check=1)
    assert "FAIL processor: an encrypted guest needs an AMD EPYC" in refused.stdout
    assert "do:  use an EPYC host" in refused.stdout
    assert "NOT fit for: sev, sev-es, sev-snp" in refused.stdout
    sevlaunch("doctor", "--host", saved, "--type", "none")
    sevlaunch("doctor", "--host", saved, "--type", "sev", check=1)
    assert json.loads(sevlaunch("doctor", "--host", saved, "--format", "json", check=1).stdout)["fit"] is False


def test_for_a_profile_it_looks_at_its_plan_and_its_files(sevlaunch: Command, tmp_path: Path) -> None:
    profile = tmp_path / "g.yaml"
    profile.write_text("memory: 1G\nsecurity: none\naccel: tcg\ndisks: [{path: missing.qcow2}]\n")
    refused = sevlaunch("doctor", "--for", profile, check=1).stdout
    assert f"disk {tmp_path}/missing.qcow2: no such file" in refused
    assert refused.splitlines()[-1] == "NOT fit for none"
    fine = sevlaunch("doctor", "--for", profile, "--set", "disks=[]", "--format", "json").json
    assert (fine["fit"], fine["type"], fine["profile"]) == (True, "none", str(profile))
    saved = HOSTS / "milan-qemu-7.2.json"
    snp = sevlaunch("doctor", "--for", PROFILES / "sev-snp.yaml", "--host", saved, check=1).stdout
    assert "has no object sev-snp-guest" in snp


def test_for_and_type_can_not_go_together(sevlaunch: Command) -> None:
    assert "can't go together" in sevlaunch("doctor", "--for", PROFILES / "plain.yaml", "--type", "sev", check=2).stderr
    sevlaunch("doctor", "--set", "memory=1G", check=2)


@pytest.mark.parametrize("purpose", [None, *PURPOSES])
def test_every_finding_concerns_the_purpose(purpose: str | None, milan_machine: Host) -> None:
    concerns = {check.name: check.concerns for check in all_checks(TREE)}
    for top in examine(milan_machine, purpose).findings:
        for one in top.walk():
            assert purpose is None or purpose in concerns[one.name]
