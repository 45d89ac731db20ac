"""What a guest of each type needs from the host, what is there instead, and how to get it."""

from __future__ import annotations

from collections.abc import Iterator

from sevlaunch.errors import Problem
from sevlaunch.host.model import Device, Host

# Guest type -> (name for people, kvm_amd's parameter).
_PARAMETERS = {"sev": ("SEV", "sev"), "sev-es": ("SEV-ES", "sev_es"), "sev-snp": ("SEV-SNP", "sev_snp")}


def missing(guest_type: str, accel: str, host: Host) -> list[Problem]:
    """Everything that ``host`` lacks for a guest of ``guest_type`` with ``accel`` (kvm, tcg or auto)."""
    problems = list(_qemu(host))
    if guest_type != "none":
        problems += [*_processor(guest_type, host), *_kernel(guest_type, host)]
    if guest_type != "none" or accel == "kvm":
        problems += _device(host.kvm.device, "KVM", "load kvm_amd or kvm_intel; turn on virtualisation in the BIOS")
    if guest_type != "none":
        problems += _device(
            host.kvm.sev_device,
            "the secure processor",
            "load the ccp module; turn on the PSP and SEV in the BIOS",
        )
    return problems


def missing_for_rehearsal(host: Host) -> list[Problem]:
    """Everything that ``host`` lacks for a rehearsal: it takes KVM, and no SEV."""
    return [
        *_qemu(host),
        *_device(host.kvm.device, "KVM", "rehearse on a machine with KVM, or run it unencrypted: --set security=none"),
    ]


def _qemu(host: Host) -> Iterator[Problem]:
    if host.qemu is None:
        yield Problem(
            f"QEMU: {host.qemu_problem}",
            hint="Debian, Ubuntu: apt install qemu-system-x86; Fedora: dnf install qemu-system-x86-core; "
            "openSUSE: zypper install qemu-x86",
        )


def _processor(guest_type: str, host: Host) -> Iterator[Problem]:
    name, _ = _PARAMETERS[guest_type]
    cpu = host.cpu
    if not cpu.vendor:
        yield Problem(f"processor: {name} could not be looked up in CPUID ({cpu.read_by})", hint="run as root")
        return
    if cpu.vendor != "AuthenticAMD":
        yield Problem(f"processor: {name} needs an AMD EPYC, found {cpu.name or cpu.vendor}", hint="use an EPYC host")
        return
    leaf = cpu.encryption
    has_feature = leaf and {"sev": leaf.sev, "sev-es": leaf.sev_es, "sev-snp": leaf.sev_snp}[guest_type]
    if not has_feature:
        found = "has no CPUID leaf 0x8000001F" if leaf is None else f"CPUID 0x8000001F EAX is {leaf.eax:#x}"
        yield Problem(
            f"processor: {name} is not there ({cpu.name}: {found})",
            hint="turn on SMEE and SEV in the BIOS; inside a virtual machine SEV is not passed on",
        )
    elif leaf and guest_type != "sev" and leaf.es_guests == 0:
        yield Problem(
            f"processor: no ASIDs are left for {name} guests (minimum SEV ASID is {leaf.edx})",
            hint="raise the SEV-ES ASID space limit in the BIOS",
        )


def _kernel(guest_type: str, host: Host) -> Iterator[Problem]:
    name, parameter = _PARAMETERS[guest_type]
    if host.kvm.module != "kvm_amd":
        yield Problem(
            f"kernel: wanted the module kvm_amd, found {host.kvm.module or 'no KVM module'}",
            hint=f"modprobe kvm_amd {parameter}=1",
        )
    elif not host.kvm.enabled(parameter):
        found = host.kvm.parameters.get(f"kvm_amd.{parameter}", "not there")
        yield Problem(
            f"kernel: {name} is off in kvm_amd ({parameter} is {found})",
            hint=f"write 'options kvm_amd {parameter}=1' into /etc/modprobe.d/kvm-amd.conf and reload the module",
        )


def _device(device: Device, what: str, remedy: str) -> Iterator[Problem]:
    if not device.exists:
        yield Problem(f"{device.path}: missing, the way to {what}", hint=remedy)
    elif not device.openable:
        group = f" (mode {device.mode}, owner {device.owner}, group {device.group})"
        yield Problem(
            f"{device.path}: can't be opened: {device.error}{group}",
            hint=f"join the group {device.group}, or: setfacl -m u:$USER:rw {device.path}",
        )
