"""Guest policies that a host's kernel or secure processor refuses: told at the plan, not by a launch that fails."""

from __future__ import annotations

import re
from collections.abc import Iterator

from msgspec import Struct

from sevlaunch.guest_type import GuestType
from sevlaunch.host.model import Host
from sevlaunch.plan.context import Context
from sevlaunch.profile.model import SevSecurity, SnpSecurity
from sevlaunch.profile.policy import SNP_POLICY, describe_policy, policy_format
from sevlaunch.remedies import LINUX_SINCE

Release = tuple[int, int]

# snp_launch_start() in the kernel's arch/x86/kvm/svm/sev.c answers EINVAL to what it does not take.
_FIRST = LINUX_SINCE["sev_snp"]
_FREE_SMT = LINUX_SINCE["policies without smt, and with single-socket"]
_TOLD = LINUX_SINCE["KVM_X86_SNP_POLICY_BITS"]
_UNTOLD = SNP_POLICY.always | 0xFFFF | sum(SNP_POLICY.bits[name] for name in ("smt", "debug", "single-socket"))


class PolicyProblem(Struct, frozen=True):
    """Why a host does not take a policy. ``certain``: it is known of this kernel, rather than of its version."""

    message: str
    hint: str
    certain: bool = True


def check_policy(context: Context, security: SevSecurity | SnpSecurity) -> None:
    """Note what the host refuses; of a host saved in a file, which may have been updated since, as a warning."""
    if context.rehearse:
        # The emulated kernel and processor take every policy.
        return
    for problem in policy_problems(security.effective_policy, security.guest_type, context.host):
        if problem.certain and not context.host.saved:
            context.lack(problem.message, hint=problem.hint)
        else:
            context.warn(f"{problem.message} ({problem.hint})")


def policy_problems(policy: int, guest_type: GuestType, host: Host) -> Iterator[PolicyProblem]:
    """What this host refuses about a policy."""
    if guest_type is GuestType.SEV_SNP:
        yield from _kvm_problems(policy, host)
    wanted = _firmware_version(policy, guest_type)
    found = _firmware_of(host, guest_type)
    if found is not None and wanted > found:
        yield PolicyProblem(
            f"the policy wants version {_shown(wanted)} of the secure processor's firmware, and this host has "
            f"{_shown(found)}",
            "update the firmware (BIOS, or /lib/firmware/amd), or ask for less",
        )


def _kvm_problems(policy: int, host: Host) -> Iterator[PolicyProblem]:
    told = host.kvm.snp_policy_bits
    if told is not None:
        if refused := policy & ~told:
            yield PolicyProblem(
                f"KVM does not take the policy bits {_names(refused)} here: KVM_X86_SNP_POLICY_BITS is {told:#x}",
                "leave them out, or update kernel and firmware",
            )
        return
    release = _release(host.kernel)
    if release is None:
        return
    # Kernels of Red Hat and its kin have much of newer ones in them; before 6.11, SNP was what the vendor made it.
    certain = release >= _FIRST and not re.search(r"\.el\d", host.kernel)
    kernel = f"KVM in Linux {host.kernel}"
    if release < _FREE_SMT:
        if not policy & SNP_POLICY.bits["smt"]:
            yield PolicyProblem(
                f"{kernel} takes no SNP policy without smt", "add smt, or use Linux 6.17 or newer", certain
            )
        if policy & SNP_POLICY.bits["single-socket"]:
            yield PolicyProblem(
                f"{kernel} takes no SNP policy with single-socket", "leave it out, or use Linux 6.17 or newer", certain
            )
    movable = policy & SNP_POLICY.bits["migration-agent"]
    if release < _TOLD and (refused := policy & ~_UNTOLD & ~movable):
        yield PolicyProblem(
            f"{kernel} does not take the policy bits {_names(refused)}",
            "leave them out, or use Linux 6.19 or newer, with a firmware that has them",
            certain,
        )
    if movable:
        # Up to 6.19 none does; what a later one that tells nothing does is not known.
        yield PolicyProblem(
            f"{kernel} takes no SNP policy with migration-agent", "leave it out", certain and release <= _TOLD
        )


def _release(kernel: str) -> Release | None:
    found = re.match(r"(\d+)\.(\d+)", kernel)
    return (int(found[1]), int(found[2])) if found else None


def _firmware_version(policy: int, guest_type: GuestType) -> Release:
    layout = policy_format(guest_type)
    return policy >> layout.major_shift & 0xFF, policy >> layout.minor_shift & 0xFF


def _firmware_of(host: Host, guest_type: GuestType) -> Release | None:
    """Of a host that was looked at thoroughly."""
    if host.platform is None:
        return None
    status = host.platform.snp if guest_type is GuestType.SEV_SNP else host.platform.sev
    return (status.api_major, status.api_minor) if status else None


def _names(bits: int) -> str:
    reserved = [f"bit {bit}" for bit in range(SNP_POLICY.width) if bits >> bit & 1 and not 1 << bit & SNP_POLICY.known]
    return ", ".join([*describe_policy(bits, SNP_POLICY), *reserved])


def _shown(release: Release) -> str:
    return ".".join(map(str, release))
