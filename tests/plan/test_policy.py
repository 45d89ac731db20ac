"""What a kernel or a secure processor refuses about a policy is known before a launch fails with ret=-22."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from sevlaunch.errors import HostError
from sevlaunch.guest_type import GuestType
from sevlaunch.host.facts import PlatformFacts, SevStatus, SnpStatus
from sevlaunch.host.model import Host
from sevlaunch.plan.policy import policy_problems
from sevlaunch.plan.resolve import resolve
from sevlaunch.profile.loader import loads
from sevlaunch.profile.policy import SNP_POLICY, parse_policy
from tests.conftest import HOSTS

# What Linux 6.19 told on an EPYC whose firmware has no page-swap-disabled: all bits but that and migration-agent.
TOLD = SNP_POLICY.known & ~SNP_POLICY.bits["migration-agent"] & ~SNP_POLICY.bits["page-swap-disabled"]


@pytest.fixture
def host() -> Host:
    """A recorded Milan with the newest QEMU."""
    return Host.load(HOSTS / "milan-qemu-11.1.json")


def with_kernel(host: Host, kernel: str, told: int | None = None) -> Host:
    """The host with another kernel."""
    return replace(host, kernel=kernel, kvm=replace(host.kvm, snp_policy_bits=told))


@pytest.mark.parametrize(
    ("kernel", "names", "refused"),
    [
        ("6.11.0", "smt,debug", []),
        ("6.16.12-amd64", "smt,abi-1.55", []),
        ("6.11.0", "debug", ["no SNP policy without smt"]),
        ("6.16.12-amd64", "single-socket", ["no SNP policy without smt", "no SNP policy with single-socket"]),
        ("6.17.0", "single-socket", []),
        ("6.17.0", "abi-1.55", []),
        ("6.12.63+deb13-amd64", "smt,cxl,aes-256-xts", ["does not take the policy bits cxl, aes-256-xts"]),
        ("6.18.3", "rapl-disabled,ciphertext-hiding", ["bits rapl-disabled, ciphertext-hiding"]),
        ("6.19.0", "rapl-disabled,ciphertext-hiding,page-swap-disabled", []),
        ("6.18.3", "migration-agent", ["no SNP policy with migration-agent"]),
        ("6.19.0", "smt,migration-agent", ["no SNP policy with migration-agent"]),
        ("", "migration-agent,cxl", []),
    ],
)
def test_what_each_kernel_refuses_is_known(kernel: str, names: str, refused: list[str], host: Host) -> None:
    policy = parse_policy(names, SNP_POLICY)
    problems = list(policy_problems(policy, GuestType.SEV_SNP, with_kernel(host, kernel)))
    assert len(problems) == len(refused)
    for problem, text in zip(problems, refused, strict=True):
        assert text in problem.message
        assert kernel in problem.message
        assert problem.hint
        assert problem.certain


@pytest.mark.parametrize("kernel", ["5.14.0-570.el9.x86_64", "6.12.0-55.9.1.el10_0.x86_64", "6.5.0-snp-host-85ef1ac"])
def test_of_a_vendors_kernel_nothing_is_certain(kernel: str, host: Host) -> None:
    (problem,) = policy_problems(0x30000 | SNP_POLICY.bits["cxl"], GuestType.SEV_SNP, with_kernel(host, kernel))
    assert not problem.certain


def test_what_kvm_tells_counts_whatever_its_version(host: Host) -> None:
    for kernel in ("6.12.0", "6.19.0", "7.3.1"):
        here = with_kernel(host, kernel, TOLD)
        assert list(policy_problems(TOLD & ~SNP_POLICY.bits["smt"], GuestType.SEV_SNP, here)) == []
        policy = parse_policy("smt,migration-agent,page-swap-disabled", SNP_POLICY)
        (problem,) = policy_problems(policy, GuestType.SEV_SNP, here)
        assert "does not take the policy bits migration-agent, page-swap-disabled here" in problem.message
        assert f"{TOLD:#x}" in problem.message
        assert problem.certain


def test_the_firmware_of_the_secure_processor_has_to_be_new_enough(host: Host) -> None:
    sev = SevStatus(api_major=1, api_minor=55, build=21, state=1, es=True, guests=0)
    snp = SnpStatus(
        api_major=1, api_minor=55, build=21, state=1, rmp_initialized=True, guests=0, current_tcb=0, reported_tcb=0
    )
    here = replace(host, platform=PlatformFacts(sev=sev, snp=snp))
    for guest_type, policy, found in (
        (GuestType.SEV_SNP, 0x30137, 0),
        (GuestType.SEV_SNP, 0x3013A, 1),
        (GuestType.SEV, 0x37010033, 0),
        (GuestType.SEV_ES, 0x38010037, 1),
        (GuestType.SEV_SNP, 0x30200, 1),
    ):
        problems = list(policy_problems(policy, guest_type, here))
        assert len(problems) == found, hex(policy)
        assert all("and this host has 1.55" in problem.message for problem in problems)


def test_a_plan_for_this_host_is_refused_and_one_for_a_saved_host_warned_of(host: Host) -> None:
    names = "[smt, ciphertext-hiding, rapl-disabled, page-swap-disabled, aes-256-xts, abi-1.58]"
    loaded = loads(f"name: turin\nmemory: 4G\nsecurity: {{type: sev-snp, policy: {names}}}\n")
    kernel = "KVM in Linux 6.12.0 does not take the policy bits aes-256-xts, rapl-disabled, ciphertext-hiding, "
    plan = resolve(loaded, host)
    assert [warning for warning in plan.warnings if kernel in warning]
    with pytest.raises(HostError) as caught:
        resolve(loaded, replace(host, saved=False))
    assert [problem for problem in caught.value.problems if kernel in problem.message]
    assert resolve(loaded, with_kernel(replace(host, saved=False), "6.19.2")).warnings == ()


def test_a_rehearsal_takes_every_policy(host: Host) -> None:
    loaded = loads("name: g\nmemory: 1G\nsecurity: {type: sev-snp, policy: [single-socket]}\n")
    assert resolve(loaded, replace(host, saved=False), rehearse=True).warnings == ()
